"""Which options of a search space apply beside which others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from capibara_keras import config, errors
from capibara_keras.errors import ConfigError
from capibara_keras.rules import RULES
from capibara_keras.schedules.plan import ALIASES as SCHEDULE_ALIASES
from capibara_keras.schedules.plan import RATIOS
from capibara_keras.schedules.table import SCHEDULES
from capibara_keras.tuning.domains import Choice, Dimension

__all__ = ["canonical", "conditional"]


def canonical(name: str) -> str:
    """An option's name in the package.

    >>> canonical("beta1"), canonical("max_steps")
    ('beta_1', 'total_steps')
    """
    return SCHEDULE_ALIASES.get(name, config.ALIASES.get(name, name))


def conditional(dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """The dimensions, each after those that it depends on, with the conditions that follow from what the searched
    algorithms and schedules have.

    Raises:
        ConfigError: a condition on an option or a value that is not in the space, or a circle of them; an option
            under two names.
    """
    names: dict[str, str] = {}
    for d in dimensions:
        other = names.setdefault(canonical(d.name), d.name)
        if other != d.name:
            raise ConfigError(f"search_space: {other} and {d.name} are the same option; give one")
    found = _ordered([_with_owners(d, dimensions) for d in dimensions])
    for d in found:
        _check(d, {other.name: other for other in found})
    return tuple(found)


def _with_owners(dimension: Dimension, all_of_them: Sequence[Dimension]) -> Dimension:
    names = [d.name for d in all_of_them]
    for key in dimension.when:
        if key not in names:
            raise errors.unknown(f"option in the condition of {dimension.name}", key, names)
    conditions = dict(dimension.when)
    for parent in all_of_them:
        if canonical(parent.name) not in _OWNERS or parent.fixed:
            continue
        if parent.name in conditions or canonical(dimension.name) in _OWNERS:
            continue
        having = tuple(v for v in parent.domain.grid() if _exists(dimension.name, parent.name, v))
        if having and len(having) < parent.domain.size:
            conditions[parent.name] = having
    return dataclasses.replace(dimension, when=conditions)


def _exists(option: str, parent: str, value: Any) -> bool:
    """Whether an algorithm or a schedule has an option. Those that belong to none exist for all."""
    owners = _OWNERS[canonical(parent)].get(canonical(option))
    return owners is None or value in owners


def _owners(table: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, set[str]]:
    """Option -> names of the dataclasses of a table that have it; `more` are options that stand for another."""
    owners: dict[str, set[str]] = {}
    for name, kind in table.items():
        own = {field.name for field in dataclasses.fields(kind)}
        for option in own | {alias for alias, plain in more.items() if plain in own}:
            owners.setdefault(option, set()).add(name)
    return owners


_OWNERS = {
    "algorithm": _owners(RULES, {}),
    "scheduler_type": _owners(SCHEDULES, RATIOS) | {"total_steps": set(SCHEDULES)},
}
"""Option that chooses a kind -> option -> the kinds that have it."""


def _ordered(dimensions: list[Dimension]) -> list[Dimension]:
    """Options that others depend on first; else as given."""
    result: list[Dimension] = []
    rest = list(dimensions)
    while rest:
        known = {d.name for d in result}
        ready = [d for d in rest if set(d.when) <= known]
        if not ready:
            raise ConfigError(f"search_space: {', '.join(d.name for d in rest)} depend on each other")
        result += ready
        rest = [d for d in rest if d not in ready]
    return result


def _check(dimension: Dimension, known: Mapping[str, Dimension]) -> None:
    """A condition that can never hold would leave its option out in silence."""
    for name, values in dimension.when.items():
        parent = known[name].domain
        for value in values:
            if isinstance(parent, Choice):
                possible, shown = value in parent.values, ", ".join(map(repr, parent.values))
            else:
                possible = parent.whole and value in range(int(parent.low), int(parent.high) + 1)
                shown = f"whole numbers from {parent.low:g} to {parent.high:g}" if parent.whole else "a range of reals"
            if not possible:
                raise ConfigError(
                    f"{dimension.name}: the condition {name}={value!r} never holds. In the search space {name} is "
                    f"{'one of ' if isinstance(parent, Choice) else ''}{shown}"
                )

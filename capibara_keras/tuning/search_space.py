"""The options that are searched, and configurations as points of the unit cube."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capibara_keras import config
from capibara_keras.errors import ConfigError
from capibara_keras.tuning.combining import combined
from capibara_keras.tuning.conditions import canonical, conditional
from capibara_keras.tuning.domains import Choice, Dimension, Range, Values
from capibara_keras.tuning.notation import read_dimension

__all__ = ["SearchSpace"]


@dataclass(frozen=True)
class SearchSpace:
    """The options that are searched.

    Args:
        dimensions: options that others depend on come first.

    >>> space = SearchSpace.parse({"algorithm": ["adam", "sgd", "choice"], "learning_rate": [1e-4, 1e-1, "log"],
    ...                            "momentum": [0.5, 0.9, "uniform"]})
    >>> space.values([0.1, 0.5, 0.0])
    {'algorithm': 'adam', 'learning_rate': 0.00316227766017}
    >>> space.values([0.9, 0.5, 0.0])
    {'algorithm': 'sgd', 'learning_rate': 0.00316227766017, 'momentum': 0.5}
    """

    dimensions: tuple[Dimension, ...]

    @classmethod
    def parse(cls, options: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> SearchSpace:
        """The space of a dictionary.

        Args:
            options: any option of `Optimizer` -> one of

                - `[low, high, "uniform"]`, `[low, high, "log"]`, `[low, high, "int"]`, `[low, high, "log_int"]`
                - `[value, value, …, "choice"]`, `"bool"`
                - a number, a boolean, `None` or another string: fixed
                - `{"values": any of these, "when": {other option: its value or values}}`

                An option that only some of the searched algorithms or schedules have is searched only with those.
            base: options that every configuration has beside.

        Raises:
            ConfigError: an empty space, a bad range, an unknown option, or values that the option does not allow.
        """
        if not isinstance(options, Mapping):
            raise ConfigError(f"search_space: expected a dictionary from options to ranges, received {options!r}")
        dimensions = [read_dimension(name, entry) for name, entry in options.items()]
        if all(d.fixed for d in dimensions):
            raise ConfigError(f"search_space: there is nothing to search in {dict(options)!r}")
        space = cls(conditional(dimensions))
        space.check(base or {})
        return space

    def check(self, base: Mapping[str, Any]) -> None:
        """Raise for values that an option does not allow, whatever the others are."""
        for corner in (0.0, 1.0):
            for values in self._alternatives(corner):
                config.parse(combined(base, values))

    def _alternatives(self, corner: float) -> list[Values]:
        """Configurations at one end of all ranges in which every choice appears."""
        names = [d.name for d in self.dimensions]
        found = [self.values([corner] * len(names))]
        for i, d in enumerate(self.dimensions):
            if isinstance(d.domain, Choice):
                for value in d.domain.values:
                    units = [corner] * len(names)
                    units[i] = d.domain.position(value)
                    for parent, allowed in d.when.items():
                        units[names.index(parent)] = self.dimension(parent).domain.position(allowed[0])
                    found.append(self.values(units))
        return found

    def values(self, units: Sequence[float] | np.ndarray) -> Values:
        """The configuration at a point of the unit cube, one coordinate per dimension."""
        result: Values = {}
        for d, u in zip(self.dimensions, units, strict=True):
            if d.active(result):
                result[d.name] = d.domain.at(u)
        return result

    def units(self, values: Mapping[str, Any]) -> np.ndarray:
        """A point of the unit cube at which these values are; ½ where an option does not apply."""
        rows = [d.domain.position(values[d.name]) if d.name in values else 0.5 for d in self.dimensions]
        return np.array(rows)

    def features(self, values: Mapping[str, Any]) -> np.ndarray:
        """Numbers in which near configurations are near: a column per range, and one for each value of a choice."""
        columns: list[float] = []
        for d in self.dimensions:
            if isinstance(d.domain, Range):
                columns.append(d.domain.position(values[d.name]) if d.name in values else 0.5)
            elif not d.fixed:
                columns += [float(d.name in values and values[d.name] == value) for value in d.domain.values]
        return np.array(columns)

    @property
    def searched(self) -> tuple[Dimension, ...]:
        """The dimensions that are not fixed."""
        return tuple(d for d in self.dimensions if not d.fixed)

    def within(self, steps: int, base: Mapping[str, Any]) -> SearchSpace:
        """The space of trials of so many batches: where a schedule is searched, warmups end before its total.

        Args:
            steps: of a trial, in batches.
            base: options that every configuration has beside.

        Raises:
            ConfigError: no warmup of the range does.
        """
        names = {canonical(d.name): d for d in self.dimensions}
        if "scheduler_type" not in names:
            return self
        most = names.get("gradient_accumulation_steps")
        each = base.get("gradient_accumulation_steps") if most is None else most.domain.at(1)
        high = steps // int(each or 1) - 1
        return SearchSpace(tuple(_cut(d, high) if canonical(d.name) == "warmup_steps" else d for d in self.dimensions))

    def describe(self) -> dict[str, Any]:
        """The space as data for JSON; two spaces are the same if this is."""
        return {
            d.name: {k: v for k, v in (dataclasses.asdict(d.domain) | {"when": dict(d.when)}).items() if v}
            for d in self.dimensions
        }

    def dimension(self, name: str) -> Dimension:
        """Of an option, by the user's name."""
        return next(d for d in self.dimensions if d.name == name)


def _cut(d: Dimension, high: int) -> Dimension:
    """The dimension with no value above `high`."""
    if not isinstance(d.domain, Range) or d.domain.high <= high:
        return d
    if d.domain.low > high:
        raise ConfigError(f"{d.name}: the range starts at {d.domain.low:g}, and must not exceed {high}")
    one = d.domain.low == high
    return dataclasses.replace(d, domain=Choice((high,)) if one else dataclasses.replace(d.domain, high=high))

"""How a search space is written: lists such as `[low, high, "log"]`, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.errors import ConfigError
from capibara_keras.tuning.domains import Choice, Dimension, Domain, Range

__all__ = ["read_dimension"]


def read_dimension(name: str, entry: Any) -> Dimension:
    """One entry of a search space.

    Args:
        name: of the option.
        entry: what `SearchSpace.parse` describes.

    Raises:
        ConfigError: no such notation, an empty range, or a value that a file could not hold.

    >>> read_dimension("beta_1", {"values": [0.8, 0.99, "uniform"], "when": {"algorithm": "adam"}})
    Dimension(name='beta_1', domain=Range(low=0.8, high=0.99, log=False, whole=False), when={'algorithm': ('adam',)})
    """
    if not isinstance(entry, Mapping):
        return Dimension(name, _domain(name, entry))
    if set(entry) != {"values", "when"} or not isinstance(entry["when"], Mapping):
        raise ConfigError(f'{name}: expected {{"values": …, "when": {{option: value}}}}, received {dict(entry)!r}')
    when = {
        parent: tuple(allowed) if isinstance(allowed, (list, tuple)) else (allowed,)
        for parent, allowed in entry["when"].items()
    }
    return Dimension(name, _domain(name, entry["values"]), when)


def _domain(name: str, entry: Any) -> Domain:
    if isinstance(entry, (list, tuple)):
        return _listed(name, list(entry))
    if entry == "bool":
        return Choice((False, True))
    if entry is not None and not isinstance(entry, (bool, int, float, str, np.generic)):
        raise ConfigError(f"{name}: expected a list such as [low, high, 'log'] or a fixed value, received {entry!r}")
    return Choice((_plain(name, entry),))


def _listed(name: str, entry: list[Any]) -> Domain:
    kind = entry[-1] if entry else None
    if isinstance(kind, str) and kind in _KINDS:
        return _KINDS[kind](name, entry[:-1])
    nearest = errors.nearest(kind, _KINDS) if isinstance(kind, str) else None
    raise ConfigError(
        f"{name}: the last entry must be one of {', '.join(map(repr, _KINDS))}, received {entry!r}."
        + (f" Did you mean {nearest!r}?" if nearest else "")
    )


def _range(name: str, bounds: list[Any], *, log: bool = False, whole: bool = False) -> Range:
    if len(bounds) != 2:
        raise ConfigError(f"{name}: expected [low, high, kind], received {bounds!r} before the kind")
    check = errors.integer if whole else errors.number
    low, high = (check(f"{name}: {end}", x) for end, x in zip(("low", "high"), bounds, strict=True))
    if low >= high:
        raise ConfigError(f"{name}: low must be less than high, received low={bounds[0]!r} and high={bounds[1]!r}")
    if log and low <= 0:
        raise ConfigError(f"{name}: a logarithmic range needs low > 0, received low={bounds[0]!r}")
    return Range(low, high, log, whole)


def _choice(name: str, values: list[Any]) -> Choice:
    if not values:
        raise ConfigError(f'{name}: expected [value, value, …, "choice"], received no value')
    plain = [_plain(name, value) for value in values]
    twice = [value for i, value in enumerate(plain) if value in plain[:i]]
    if twice:
        raise ConfigError(f"{name}: every value of a choice must be another one, received {twice[0]!r} twice")
    return Choice(tuple(plain))


def _bool(name: str, rest: list[Any]) -> Choice:
    if rest:
        raise ConfigError(f'{name}: expected ["bool"], received {rest!r} before the kind')
    return Choice((False, True))


def _plain(name: str, value: Any) -> Any:
    """The value as it comes back from a file: a search is kept in one, and compared with it when it goes on."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(name, item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigError(
        f"{name}: a value must be None, a boolean, a finite number, a string, or lists and dictionaries of these, "
        f"because the search is kept in a file; received {value!r}"
    )


_KINDS: dict[str, Callable[[str, list[Any]], Domain]] = {
    "uniform": _range,
    "log": lambda name, bounds: _range(name, bounds, log=True),
    "int": lambda name, bounds: _range(name, bounds, whole=True),
    "log_int": lambda name, bounds: _range(name, bounds, log=True, whole=True),
    "choice": _choice,
    "bool": _bool,
}
"""Last entry of a list -> what the others mean."""

"""What is searched: the notation of search spaces, and values between them and the unit cube."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from capibara_keras import config, errors
from capibara_keras.errors import ConfigError
from capibara_keras.rules import RULES
from capibara_keras.schedules.plan import ALIASES as SCHEDULE_ALIASES
from capibara_keras.schedules.plan import RATIOS
from capibara_keras.schedules.table import SCHEDULES

__all__ = ["Choice", "Dimension", "Range", "SearchSpace", "Values", "sample"]

Values = dict[str, Any]
"""Option -> value, as a configuration; options that do not apply are absent."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included.

    Args:
        low, high: bounds.
        log: evenly spread in the logarithm; `low` must be positive.
        whole: integers only.

    >>> Range(1e-5, 1e-3, log=True).at(0.5)
    0.0001
    >>> [Range(1, 3, whole=True).at(u) for u in (0.0, 0.4, 1.0)]
    [1, 2, 3]
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def size(self) -> float:
        """How many different values there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    def at(self, u: float) -> float | int:
        """The value at u in [0, 1]."""
        low, high = self._edges
        u = min(max(float(u), 0.0), 1.0)
        x = math.exp(math.log(low) + u * math.log(high / low)) if self.log else low + u * (high - low)
        if self.whole:
            return int(min(max(math.floor(x + 0.5), self.low), self.high))
        return min(max(float(f"{x:.12g}"), self.low), self.high)

    def position(self, value: float) -> float:
        """The inverse of `at`; for integers the middle of their part of [0, 1]."""
        low, high = self._edges
        return math.log(value / low) / math.log(high / low) if self.log else (value - low) / (high - low)

    def grid(self, most: int = 5) -> list[float | int]:
        """At most so many values, evenly spread, with both bounds."""
        count = int(min(self.size, most))
        return [self.at(i / (count - 1)) for i in range(count)]

    @property
    def _edges(self) -> tuple[float, float]:
        return (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of some values; with a single one, a fixed value.

    >>> Choice(("adam", "sgd")).at(0.7)
    'sgd'
    """

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """How many different values there are."""
        return len(self.values)

    def at(self, u: float) -> Any:
        """The value at u in [0, 1]."""
        return self.values[min(int(min(max(u, 0.0), 1.0) * len(self.values)), len(self.values) - 1)]

    def position(self, value: Any) -> float:
        """The middle of the value's part of [0, 1]."""
        return (self.values.index(value) + 0.5) / len(self.values)

    def grid(self, most: int = 5) -> list[Any]:
        """All values."""
        return list(self.values)


@dataclass(frozen=True)
class Dimension:
    """One option that is searched, or fixed.

    Args:
        name: of the option, as the user wrote it.
        domain: its values.
        when: the option applies only where each of these others has one of these values.
    """

    name: str
    domain: Range | Choice
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        """Whether there is only one value."""
        return self.domain.size == 1

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the option applies beside these `values`."""
        return all(parent in values and values[parent] in allowed for parent, allowed in self.when.items())


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
        dimensions = [_dimension(name, entry) for name, entry in options.items()]
        if all(d.fixed for d in dimensions):
            raise ConfigError(f"search_space: there is nothing to search in {dict(options)!r}")
        dimensions = _conditional(dimensions)
        space = cls(tuple(_ordered(dimensions)))
        space.check(base or {})
        return space

    def check(self, base: Mapping[str, Any]) -> None:
        """Raise for values that an option does not allow, whatever the others are."""
        for corner in (0.0, 1.0):
            for values in self._alternatives(corner):
                config.parse({**base, **values})

    def _alternatives(self, corner: float) -> list[Values]:
        """Configurations at one end of all ranges in which every choice appears."""
        start = self.values([corner] * len(self.dimensions))
        found = [start]
        for i, dimension in enumerate(self.dimensions):
            if isinstance(dimension.domain, Choice):
                for value in dimension.domain.values:
                    units = [corner] * len(self.dimensions)
                    units[i] = dimension.domain.position(value)
                    for parent, allowed in dimension.when.items():
                        units[self._index(parent)] = self.domain(parent).position(allowed[0])
                    found.append(self.values(units))
        return found

    def values(self, units: Sequence[float] | np.ndarray) -> Values:
        """The configuration at a point of the unit cube, one coordinate per dimension."""
        result: Values = {}
        for dimension, u in zip(self.dimensions, units, strict=True):
            if dimension.active(result):
                result[dimension.name] = dimension.domain.at(u)
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
                here = values.get(d.name, _ABSENT)
                columns += [float(_same(here, value)) for value in d.domain.values]
        return np.array(columns)

    @property
    def size(self) -> float:
        """An upper limit of the number of different configurations."""
        return math.prod(d.domain.size for d in self.dimensions)

    @property
    def searched(self) -> tuple[Dimension, ...]:
        """The dimensions that are not fixed."""
        return tuple(d for d in self.dimensions if not d.fixed)

    def limited(self, name: str, high: int) -> SearchSpace:
        """The space with a range cut at `high`.

        Raises:
            ConfigError: nothing of the range is left.
        """
        found = []
        for d in self.dimensions:
            if canonical(d.name) == name and isinstance(d.domain, Range) and d.domain.high > high:
                if d.domain.low > high:
                    raise ConfigError(f"{d.name}: the range starts at {d.domain.low:g}, and must not exceed {high}")
                one = d.domain.low == high
                d = dataclasses.replace(d, domain=Choice((high,)) if one else dataclasses.replace(d.domain, high=high))
            found.append(d)
        return SearchSpace(tuple(found))

    def name_of(self, option: str) -> str | None:
        """How the user calls an option, `None` if it is not in the space."""
        return next((d.name for d in self.dimensions if canonical(d.name) == option), None)

    def declare(self, hp: Any) -> Values:
        """Ask a `keras_tuner.HyperParameters` for every option; returns the values it gives. See `sample`."""
        result: Values = {}
        for d in self.dimensions:
            given = _ask(hp, d)  # also where it does not apply: keras-tuner learns of scopes by seeing them
            if d.active(result):
                result[d.name] = _decoded(d, given)
        return result

    def hyperparameters(self, values: Mapping[str, Any] | None = None) -> Any:
        """A `keras_tuner.HyperParameters` with every option, and these values."""
        import keras_tuner

        hp = keras_tuner.HyperParameters()
        for d in self.dimensions:
            _ask(hp, d)
        hp.values = {d.name: _encoded(d, values[d.name]) for d in self.dimensions if values and d.name in values}
        return hp

    def decoded(self, values: Mapping[str, Any]) -> Values:
        """The values that `hyperparameters` was given, from keras-tuner's."""
        return {d.name: _decoded(d, values[d.name]) for d in self.dimensions if d.name in values}

    def describe(self) -> dict[str, Any]:
        """The space as data for JSON; two spaces are the same if this is."""
        return {
            d.name: {k: v for k, v in (dataclasses.asdict(d.domain) | {"when": dict(d.when)}).items() if v}
            for d in self.dimensions
        }

    def _index(self, name: str) -> int:
        return [d.name for d in self.dimensions].index(name)

    def domain(self, name: str) -> Range | Choice:
        """Of an option, by the user's name."""
        return self.dimensions[self._index(name)].domain


def sample(hp: Any, search_space: Mapping[str, Any] | SearchSpace) -> Values:
    """The options of a trial of one of keras-tuner's own tuners, for a hypermodel that exists already.

    Args:
        hp: the `keras_tuner.HyperParameters` that `build(hp)` receives.
        search_space: as `OptimizerAutoTuner` takes it.

    Returns:
        A dictionary for `Optimizer.from_config`.

    >>> import capibara_keras as ck, keras_tuner
    >>> space = {"learning_rate": [1e-4, 1e-2, "log"], "beta1": [0.8, 0.95, "uniform"]}
    >>> hp = keras_tuner.HyperParameters()
    >>> ck.Optimizer.from_config(sample(hp, space)).beta_1
    0.8
    >>> [d.name for d in hp.space]
    ['learning_rate', 'beta1']
    """
    space = search_space if isinstance(search_space, SearchSpace) else SearchSpace.parse(search_space)
    return space.declare(hp)


def canonical(name: str) -> str:
    """An option's name in the package."""
    return SCHEDULE_ALIASES.get(name, config.ALIASES.get(name, name))


_ABSENT = object()


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


# Notation ------------------------------------------------------------------------------------------------


def _dimension(name: str, entry: Any, when: Mapping[str, Any] | None = None) -> Dimension:
    if isinstance(entry, Mapping):
        if set(entry) != {"values", "when"} or not isinstance(entry["when"], Mapping):
            raise ConfigError(f'{name}: expected {{"values": …, "when": {{option: value}}}}, received {dict(entry)!r}')
        return _dimension(name, entry["values"], entry["when"])
    conditions = {p: tuple(v) if isinstance(v, (list, tuple)) else (v,) for p, v in (when or {}).items()}
    if isinstance(entry, (list, tuple)):
        kind = entry[-1] if entry else None
        if not isinstance(kind, str) or kind not in _KINDS:
            nearest = errors.nearest(kind, _KINDS) if isinstance(kind, str) else None
            raise ConfigError(
                f"{name}: the last entry must be one of {', '.join(map(repr, _KINDS))}, received {entry!r}."
                + (f" Did you mean {nearest!r}?" if nearest else "")
            )
        return Dimension(name, _KINDS[kind](name, list(entry[:-1])), conditions)
    if entry == "bool":
        return Dimension(name, Choice((False, True)), conditions)
    if entry is not None and not isinstance(entry, (bool, int, float, str, np.generic)):
        raise ConfigError(f"{name}: expected a list such as [low, high, 'log'] or a fixed value, received {entry!r}")
    return Dimension(name, Choice((entry.item() if isinstance(entry, np.generic) else entry,)), conditions)


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
    return Choice(tuple(values))


_KINDS: dict[str, Callable[[str, list[Any]], Range | Choice]] = {
    "uniform": _range,
    "log": lambda name, x: _range(name, x, log=True),
    "int": lambda name, x: _range(name, x, whole=True),
    "log_int": lambda name, x: _range(name, x, log=True, whole=True),
    "choice": _choice,
    "bool": lambda name, x: Choice((False, True)),
}
"""Last entry of a list -> what the others mean."""


# Conditions ----------------------------------------------------------------------------------------------


def _conditional(dimensions: list[Dimension]) -> list[Dimension]:
    """The dimensions with the conditions that follow from what the searched algorithms and schedules have."""
    result = []
    parents = [d for d in dimensions if canonical(d.name) in _OWNERS and not d.fixed]
    for dimension in dimensions:
        conditions = dict(dimension.when)
        for key in conditions:
            if key not in {d.name for d in dimensions}:
                raise errors.unknown(f"option in the condition of {dimension.name}", key, [d.name for d in dimensions])
        for parent in parents:
            if dimension is parent or parent.name in conditions or canonical(dimension.name) in _OWNERS:
                continue
            having = tuple(v for v in parent.domain.grid() if _exists(dimension.name, parent.name, v))
            if having and len(having) < parent.domain.size:
                conditions[parent.name] = having
        result.append(dataclasses.replace(dimension, when=conditions))
    return result


def _exists(option: str, parent: str, value: Any) -> bool:
    """Whether an algorithm or a schedule has an option. Those that belong to none exist for all."""
    option = canonical(option)
    owners = _OWNERS[canonical(parent)].get(option)
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


# keras-tuner ---------------------------------------------------------------------------------------------


def _ask(hp: Any, d: Dimension) -> Any:
    """One `hp.Float`, `hp.Int`, `hp.Choice` or `hp.Fixed`, inside the scopes of its conditions."""
    if d.when:
        parent, allowed = next(iter(d.when.items()))
        rest = {name: values for name, values in d.when.items() if name != parent}
        with hp.conditional_scope(parent, [value for value in allowed]):
            return _ask(hp, dataclasses.replace(d, when=rest))
    if isinstance(d.domain, Range):
        ask = hp.Int if d.domain.whole else hp.Float
        return ask(d.name, d.domain.low, d.domain.high, sampling="log" if d.domain.log else "linear")
    if not _plain(d.domain):
        return hp.Choice(d.name, list(range(len(d.domain.values))))
    if d.fixed:
        return hp.Fixed(d.name, d.domain.values[0])
    return hp.Boolean(d.name) if set(map(type, d.domain.values)) == {bool} else hp.Choice(d.name, d.domain.values)


def _plain(domain: Choice) -> bool:
    """Whether keras-tuner can hold the values: all of one type, and none `None`. Else it gets their numbers."""
    kinds = {type(value) for value in domain.values}
    return len(kinds) == 1 and kinds <= {bool, int, float, str}


def _encoded(d: Dimension, value: Any) -> Any:
    return value if isinstance(d.domain, Range) or _plain(d.domain) else d.domain.values.index(value)


def _decoded(d: Dimension, value: Any) -> Any:
    return value if isinstance(d.domain, Range) or _plain(d.domain) else d.domain.values[value]

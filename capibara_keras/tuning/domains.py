"""The values that an option is searched in, and when it applies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = ["Choice", "Dimension", "Domain", "Range", "Values"]

Values: TypeAlias = dict[str, Any]
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


Domain: TypeAlias = Range | Choice
"""What an option is searched in."""


@dataclass(frozen=True)
class Dimension:
    """One option that is searched, or fixed.

    Args:
        name: of the option, as the user wrote it.
        domain: its values.
        when: the option applies only where each of these others has one of these values.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def fixed(self) -> bool:
        """Whether there is only one value."""
        return self.domain.size == 1

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the option applies beside these `values`."""
        return all(parent in values and values[parent] in allowed for parent, allowed in self.when.items())

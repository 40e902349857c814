"""How long a trial is, and how often it is evaluated."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """How long a trial is.

    Args:
        interval: batches between two evaluations.
        evaluations: at most so many.

    >>> Budget.of(5000)
    Budget(interval=250, evaluations=20)
    """

    interval: int
    evaluations: int

    @property
    def steps(self) -> int:
        """Batches in all."""
        return self.interval * self.evaluations

    @classmethod
    def of(cls, steps: int, interval: int | None = None) -> Budget:
        """The budget that uses most of `steps`, with about 16 evaluations unless `interval` says otherwise."""
        if interval is not None:
            return cls(interval, steps // interval)
        counts = range(min(8, steps), min(32, steps) + 1)
        evaluations = max(counts, key=lambda n: (steps // n * n, -abs(n - 16)))
        return cls(steps // evaluations, evaluations)

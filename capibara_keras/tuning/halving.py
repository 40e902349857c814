"""Which trials are stopped early."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capibara_keras import errors

__all__ = ["EARLY_TERMINATION", "Halving", "Rungs"]


@dataclass(frozen=True)
class Halving:
    """Successive halving, a trial at a time (Li et al. 2020, Algorithm 2, in the variant that stops trials instead of
    resuming them): at each rung a trial goes on if it is in the best 1/factor of all that came so far.

    Args:
        rungs: shares of the budget, increasing.
        factor: η.
        brackets: trials take turns in leaving out none, one, … of the first rungs (Hyperband, Li et al. 2018), and
            are compared within their bracket only.

    >>> Halving(factor=2).keeps(0.8, [0.1, 0.2, 0.7, 0.9])
    False
    """

    rungs: tuple[float, ...] = (0.125, 0.375)
    factor: float = 2.0
    brackets: int = 1

    def __post_init__(self) -> None:
        for rung in self.rungs:
            errors.number("rungs", rung, 0, 1, open_low=True, open_high=True)
        if list(self.rungs) != sorted(set(self.rungs)):
            raise errors.ConfigError(f"rungs: expected increasing shares of the budget, received {self.rungs!r}")
        errors.number("factor", self.factor, 1, open_low=True)
        errors.integer("brackets", self.brackets, 1, len(self.rungs) + 1)

    def keeps(self, loss: float, others: Sequence[float]) -> bool:
        """Whether a trial goes on.

        Args:
            loss: its best so far.
            others: that of the earlier ones at the same rung.
        """
        better = sum(other < loss for other in others)
        return better < max(1, math.ceil((len(others) + 1) / self.factor))

    def rungs_of(self, number: int) -> tuple[float, ...]:
        """The rungs of a trial."""
        return self.rungs[number % self.brackets :]


EARLY_TERMINATION: Mapping[str, Halving | None] = {
    "successive_halving": Halving(),
    "hyperband": Halving((1 / 27, 1 / 9, 1 / 3), 3.0, 4),
    "none": None,
}
"""By name."""


class Rungs:
    """The results of a search at each rung.

    Args:
        halving: the rule.
        steps: budget of a trial.
    """

    def __init__(self, halving: Halving | None, steps: int) -> None:
        self.halving, self.steps = halving, steps
        self.table: dict[tuple[int, float], dict[int, float]] = {}

    def keeps(self, number: int, before: int, step: int, loss: float, warmup: int) -> bool:
        """Whether a trial goes on after an evaluation.

        Args:
            number: of the trial.
            before, step: the steps of the last evaluation, and of this one.
            loss: its best so far.
            warmup: rungs up to this step are left out: before the rate is up, losses say little.
        """
        if self.halving is None:
            return True
        keep = True
        for share in self.halving.rungs_of(number):
            at = share * self.steps
            if before < at <= step and at > warmup:
                rung = self.table.setdefault((number % self.halving.brackets, share), {})
                keep = keep and self.halving.keeps(loss, [x for other, x in rung.items() if other != number])
                rung[number] = loss
        return keep

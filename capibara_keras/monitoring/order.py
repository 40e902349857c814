"""Whether batches come in the same order in each epoch, and what the same ones gave an epoch ago."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.robust import median, rank_correlation

__all__ = ["BatchOrder", "again"]

WINDOW = 300
"""Updates that may be asked for at once."""

SHORTEST, COMPARED = 64, 1000
"""Updates that are compared with those of an epoch ago: at least, and at most."""

LONGEST = 100_000
"""Updates of an epoch that are kept: 8 bytes for each, twice, of two epochs."""

ALIKE, SIGMAS = 0.25, 4.0
"""Correlation of one epoch with the next from which on they are of one order, and by how many standard deviations."""

BLOCK = 16
"""Updates whose mean is compared too: a small buffer shuffles neighbours, and leaves the order at large as it was."""


PLACES = 30
"""Updates of an epoch ago that show whether one of them was far out."""

AGAIN = 2.0
"""A batch is hard if it was half as far out an epoch ago."""


class BatchOrder:
    """Losses and norms of gradients by their place in the epoch. A batch has a loss of its own, so where the steps from
    batch to batch are those of an epoch ago, the same batches have come.

    >>> order, rng = BatchOrder(), np.random.default_rng(0)
    >>> difficulty = rng.normal(size=80)
    >>> for epoch in range(2):
    ...     order.begin_epoch()
    ...     for batch in range(80):
    ...         order.push(3.0 - epoch + difficulty[batch], 1.0)
    >>> np.allclose(order.same_losses_before(2), 3.0 + difficulty[-2:])
    True
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._began = 0  # place of the epoch's first update; -1 if that is forgotten
        self.epoch_updates = 0
        """Of the last whole epoch; 0 where none has ended, or it was too long to be kept."""
        self._repeats: bool | None = None

    def push(self, loss: float, gradient_norm: float) -> None:
        """The next update; `nan` for what is not known."""
        self._losses.append(loss if math.isfinite(loss) else math.nan)
        self._norms.append(gradient_norm if math.isfinite(gradient_norm) else math.nan)
        if len(self._losses) % BLOCK == 0:
            self._repeats = None
        if len(self._losses) > 2 * LONGEST + WINDOW:
            self._forget(LONGEST)

    def begin_epoch(self) -> None:
        """The next update is the first of an epoch."""
        self.epoch_updates = len(self._losses) - self._began if self._began >= 0 else 0
        self._forget(self.epoch_updates + max(self.epoch_updates, WINDOW, SHORTEST + 1))
        self._began, self._repeats = len(self._losses), None

    def losses_before(self, n: int) -> np.ndarray:
        """What stood in the places of the last n updates an epoch ago; of fewer, where no more is known."""
        return self._before(self._losses, n)

    def losses_around(self) -> np.ndarray:
        """Of some places up to this one, an epoch ago; nothing where an epoch has no more than these."""
        return self._around(self._losses)

    def norms_around(self) -> np.ndarray:
        """As `losses_around`."""
        return self._around(self._norms)

    def same_losses_before(self, n: int) -> np.ndarray:
        """`losses_before`, of the same batches; nothing where they are not known to be the same."""
        return self.losses_before(n) if self.repeats() else np.zeros(0)

    def epoch_losses(self) -> np.ndarray:
        """The known ones of as many last updates as an epoch has."""
        losses = np.array(self._losses[len(self._losses) - self.epoch_updates :])
        return losses[~np.isnan(losses)]

    def is_undecided(self) -> bool:
        """Whether the data have begun anew, and it will show soon if their order is the same."""
        return self.epoch_updates > 0 and len(self._losses) - self.epoch_updates < SHORTEST

    def repeats(self) -> bool:
        """Whether the order is that of the epoch before; as it was a few updates ago at most."""
        if self._repeats is None:
            self._repeats = self._compare()
        return self._repeats

    def _compare(self) -> bool:
        if not self.epoch_updates or self.is_undecided():
            return False
        then = self.losses_before(COMPARED)
        now = np.array(self._losses[-len(then) :])
        return _alike(then, now) or _alike(_means(then), _means(now))

    def _around(self, series: list[float]) -> np.ndarray:
        return self._before(series, PLACES) if self.epoch_updates > PLACES else np.zeros(0)

    def _before(self, series: list[float], n: int) -> np.ndarray:
        end = len(series) - self.epoch_updates if self.epoch_updates else 0
        return np.array(series[max(0, end - n) : end])

    def _forget(self, kept: int) -> None:
        """All but so many updates."""
        gone = max(0, len(self._losses) - kept)
        del self._losses[:gone], self._norms[:gone]
        self._began = max(-1, self._began - gone)


def again(now: float, usual: float, then: np.ndarray) -> bool:
    """Whether a number that is far above the usual one was so in this place an epoch ago: a hard batch, which has come
    again. One that has been rising since is not.

    Args:
        now, usual: the number, and the median of those before.
        then: numbers of an epoch ago; the last is that in the same place.

    >>> again(10.0, 1.0, np.array([1.0, 1.0, 8.0])), again(10.0, 1.0, np.array([6.0, 7.0, 8.0]))
    (True, False)
    """
    return len(then) > 1 and now - usual <= AGAIN * (float(then[-1]) - median(then[:-1]))


def _alike(then: np.ndarray, now: np.ndarray) -> bool:
    """Whether two series take steps of the same ranks: a trend that both have does not count."""
    steps = np.stack([np.diff(then), np.diff(now)])
    steps = steps[:, np.isfinite(steps).all(0)]
    n = steps.shape[1]
    return n > SIGMAS**2 and rank_correlation(*steps) > max(ALIKE, SIGMAS / math.sqrt(n))


def _means(x: np.ndarray) -> np.ndarray:
    """Of neighbours."""
    return x[len(x) % BLOCK :].reshape(-1, BLOCK).mean(1)

"""The losses of batches, out of the running mean that Keras logs."""

from __future__ import annotations

import math
import threading

__all__ = ["BatchLosses"]


class BatchLosses:
    """Undoes the running mean over an epoch: n mean_n - m mean_m is the sum of the losses after batch m.

    That is exact for batches of one size; a smaller last one comes out nearer to the mean. After a loss that is not
    finite, those of the rest of the epoch are not known.

    >>> losses = BatchLosses()
    >>> losses.seen(0, 4.0)
    >>> losses.seen(1, 3.0)
    >>> losses.take()
    [4.0, 2.0]
    """

    def __init__(self) -> None:
        self._means: dict[int, float | None] = {}
        self._news = threading.Condition()
        self.begin()

    def begin(self) -> None:
        """An epoch begins."""
        self._batches, self._mean = 0, 0.0

    def seen(self, batch: int, mean: float) -> None:
        """The mean after `batch` (from 0) is known. Calls may come from other threads, and in any order."""
        self._put(batch, mean)

    def passed(self, batch: int) -> None:
        """`batch` went by without a loss, as those do that `Resume` lets pass. The mean that follows may be of them
        too, so the next loss is not known, and those behind it are."""
        self._put(batch, None)

    def _put(self, batch: int, mean: float | None) -> None:
        with self._news:
            self._means[batch + 1] = mean
            self._news.notify_all()

    def wait(self, batches: int, seconds: float = 1.0) -> None:
        """Until the loss of so many batches is known, or that long: Keras calls back from other threads, later."""
        with self._news:
            self._news.wait_for(lambda: batches in self._means or batches <= self._batches, seconds)

    def take(self) -> list[float | None]:
        """The losses of the batches since the last call."""
        found: list[float | None] = []
        for n in sorted(self._means):
            mean = self._means.pop(n)
            if n <= self._batches:
                continue
            if mean is None:
                self._batches, self._mean = n, math.nan
                continue
            if not math.isfinite(self._mean):
                loss: float | None = None
            elif not math.isfinite(mean):
                loss = math.inf
            else:
                loss = (n * mean - self._batches * self._mean) / (n - self._batches)
            found += [loss] * (n - self._batches)
            self._batches, self._mean = n, mean
        return found

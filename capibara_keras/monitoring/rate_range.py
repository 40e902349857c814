"""What a learning-rate range test says: the smoothed loss, and two rates read off it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras.monitoring import figures, rate_range_plots
from capibara_keras.monitoring.robust import deviation
from capibara_keras.records import Record

__all__ = ["RangeTest", "read_range", "smoothed"]

WIDTH = 1 / 40
"""Standard deviation of the smoothing kernel, as a share of the steps."""

SIGNIFICANT = 7.0
"""A fall or rise counts from so many standard errors of the smoothed loss on: the lowest of many is far below the mean.
Of 1500 curves of pure noise 0.5 % were said to fall with 7, 5 % with 5."""

ROUNDING = 1e-6
"""Differences below this share of the loss are none."""

LEAST = 20
"""Losses that the noise is taken from, at least."""


@dataclass(frozen=True, eq=False)
class RangeTest(Record):
    """The loss while the learning rate rises exponentially, one update for each rate (Smith 2017, section 3.3).

    Args:
        rates: that were tried.
        losses: of the batch that came after the update with each rate; `inf` if it was not finite.
        smoothed: the losses through a Gaussian kernel, those above the limit counted as the limit.
        start_loss: of the first batch, before any update.
        diverged: whether the loss was not finite, or rose above the limit, before the highest rate was reached.
        steepest: the rate at which the smoothed loss falls fastest, per decade of the rate: a good constant rate, or
            the peak of a schedule that decays soon. `nan` if the loss did not fall by more than its noise.
        largest_stable: the largest rate whose smoothed loss is not above the lowest by more than its noise: an upper
            bound, which training for long seldom bears. Where it is the last of the rates, the loss did not
            rise: try higher ones. `nan` if the first rate was too high.

    >>> rates = np.geomspace(1e-4, 1, 41)
    >>> test = read_range(rates, np.where(rates < 0.1, 2 - 10 * rates, 50 * rates), 2.0, False)
    >>> f"{test.largest_stable:.2f}", test.rose
    ('0.06', True)
    >>> test  # without the arrays
    RangeTest(start_loss=2.0, diverged=False, steepest=0.0398..., largest_stable=0.0630...)
    """

    rates: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    smoothed: np.ndarray = field(repr=False)
    start_loss: float
    diverged: bool
    steepest: float
    largest_stable: float

    @property
    def rose(self) -> bool:
        """Whether a rate was found that is too high."""
        return bool(self.largest_stable != self.rates[-1])

    def draw(self, figure: Any) -> None:
        """Draw into a figure of matplotlib."""
        rate_range_plots.draw(figure, self)

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure of the losses and the two rates, written to `path` (.png, .svg or .pdf) if there is one.

        Raises:
            ConfigError: the file cannot be written.
        """
        figure = figures.new()
        self.draw(figure)
        return figures.save(figure, path)


def read_range(rates: np.ndarray, losses: np.ndarray, start_loss: float, diverged: bool) -> RangeTest:
    """The result for measured losses.

    Args:
        rates: increasing.
        losses: after the update with each; what is not finite counts as infinite.
        start_loss: before any update.
        diverged: whether the test was stopped.
    """
    losses = np.where(np.isfinite(losses), losses, math.inf)
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return RangeTest(rates, losses, np.full(len(rates), math.nan), start_loss, diverged, math.nan, math.nan)
    limit = ceiling(min(float(finite.min()), start_loss), start_loss)
    clipped = np.minimum(losses, max(limit, start_loss))
    width = max(1.0, WIDTH * len(rates))
    smooth = smoothed(clipped, width)
    lowest = int(np.argmin(smooth))
    error = _noise(clipped[: max(lowest + 1, LEAST)]) * _shrinkage(width)
    clear = SIGNIFICANT * error + ROUNDING * float(np.abs(smooth).max())
    steepest = math.nan
    if smooth[0] - smooth[lowest] > clear:
        slope = np.gradient(smooth, np.log10(rates))
        steepest = float(rates[np.argmin(slope[: lowest + 1])])
    stable = int(np.flatnonzero(smooth <= smooth[lowest] + clear)[-1])
    largest = float(rates[stable]) if smooth[stable] < limit - ROUNDING * abs(limit) else math.nan
    return RangeTest(rates, losses, smooth, start_loss, diverged, steepest, largest)


def ceiling(best: float, start_loss: float) -> float:
    """Where a loss has diverged: above its best by the size of the first one, or by as much as it had fallen.

    >>> ceiling(0.5, 2.0), ceiling(-3.0, -1.0)
    (2.5, -1.0)
    """
    return best + max(abs(start_loss), start_loss - best)


def smoothed(values: np.ndarray, width: float) -> np.ndarray:
    """A mean over neighbours with the weights of a Gaussian, on both sides: nothing comes late.

    Args:
        width: its standard deviation, in points.

    >>> smoothed(np.array([1.0, 1.0, 4.0, 1.0, 1.0]), 1.0).argmax()
    np.int64(2)
    """
    distance = np.subtract.outer(np.arange(len(values)), np.arange(len(values))) / width
    weights = np.exp(-(distance**2) / 2)
    return np.asarray(weights @ values / weights.sum(1))


def _noise(values: np.ndarray) -> float:
    """Standard deviation around a trend, from second differences, which a line does not have."""
    if len(values) < 5:
        return 0.0
    second = np.diff(values, 2)
    return deviation(second) / math.sqrt(6)


def _shrinkage(width: float) -> float:
    """Standard error of a smoothed value, as a share of the noise: 1 / √(2 √π width)."""
    return float(min(1.0, 1 / math.sqrt(2 * math.sqrt(math.pi) * width)))

"""The curve of the family that fits a series best: robustly, by variable projection on grids."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from capibara_keras.monitoring import robust
from capibara_keras.monitoring.decay.family import SLOWEST, STEEPEST, Decay, project

__all__ = ["Fit", "fit"]

BINS = 64
WIDTH = 4
"""Points in the narrowest bin, if there are enough: one wild value among them does not count."""
RATES, RATIOS = 56, 28
"""Grid over ρ and q."""
HUBER = 1.5
"""Residuals beyond this many deviations lose weight (Huber 1964)."""
EXACT = 1e-6
"""Residuals below this share of the span of the data are rounding."""
FALLS = 7.0
"""Quantile of F(3, ∞) at which a constant is rejected: p = 1e-4."""
BENDS = 6.6
"""Quantile of F(1, ∞) at which an exponential is: p = .01."""


@dataclass(frozen=True)
class Fit:
    """The best curve, and the data as they were weighted for it.

    Args:
        best: an exponential, or a power law where one is needed.
        x, y, weights: the bins.
        rss, lowest, constant: weighted sums of squares: of `best`, of the best of both kinds, of a constant.
        freedom: independent residuals beyond the parameters.
        spread: variance of the estimates over the one that the weighted sum of squares suggests.
        sigma: noise of a single point.
    """

    best: Decay
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    rss: float
    lowest: float
    constant: float
    freedom: float
    spread: float
    sigma: float = float("nan")

    @property
    def is_power(self) -> bool:
        """Whether an exponential does not do."""
        return self.best.ratio > 1

    @property
    def falls(self) -> bool:
        """Whether a constant is rejected."""
        gain = (self.constant - self.rss) / 3
        return bool(gain > self.spread * self.rss / self.freedom * FALLS * (1 + 10 / self.freedom))


def fit(t: np.ndarray, y: np.ndarray) -> Fit:
    """Fit the family to points at increasing times t >= 0; noise may be heavy-tailed and correlated."""
    x, fastest, width = t / t[-1], max(20.0, float(len(t))), min(WIDTH, max(1, len(t) // 40))
    first = _robust_fit(*robust.bins(x, y, BINS, width), fastest).best
    rho = robust.autocorrelation(y - first(x))
    if rho > 0.15:  # bins as long as the noise remembers, whose means differ independently
        width = max(width, int(min(np.ceil((1 + rho) / (1 - min(rho, 0.99))), len(t) // 20)))
    centres, values, counts = robust.bins(x, y, BINS, width)
    bend = robust.bins(x, first(x), BINS, width)[1] - first(centres)  # of the curve, within each bin
    found = _robust_fit(centres, values - bend, counts, fastest)
    return replace(found, sigma=robust.deviation(y - found.best(x)))


def _robust_fit(x: np.ndarray, y: np.ndarray, counts: np.ndarray, fastest: float) -> Fit:
    w, powers, ones = counts.astype(float), 1 + np.geomspace(0.05, STEEPEST, RATIOS), np.ones(1)
    rounding = EXACT * float(np.ptp(y))
    for _ in range(3):
        power, rss_power = _search(x, y, w, fastest, powers)
        plain, rss_plain = _search(x, y, w, fastest, ones)
        rest = np.sqrt(counts) * (y - (power if rss_power < rss_plain else plain)(x))
        u = rest / max(robust.deviation(rest), rounding)
        last, w = w, counts * np.minimum(1.0, HUBER / np.maximum(np.abs(u), HUBER))
    e = np.sqrt(last) * rest / np.sqrt(counts)
    rho = min(robust.autocorrelation(e) + 1 / len(x), 0.9)  # the estimate is low by about 1/n
    freedom = max(len(x) * (1 - rho) / (1 + rho) - 4, 3.0)
    exact = rounding**2 * float(last.sum())
    lowest = min(rss_power, rss_plain) + exact
    bends = rss_plain - rss_power > lowest / freedom * BENDS * (1 + 4 / freedom)
    return Fit(
        best=power if bends else plain,
        x=x,
        y=y,
        weights=last,
        rss=(rss_power if bends else rss_plain) + exact,
        lowest=lowest,
        constant=float(last @ (y - np.average(y, weights=last)) ** 2),
        freedom=freedom,
        spread=_spread(u),
    )


def _spread(u: np.ndarray) -> float:
    """Variance of a Huber estimate, E ψ² / (E ψ')² (Huber 1981, section 3.2), over E w u² / E w."""
    w = np.minimum(1.0, HUBER / np.maximum(np.abs(u), HUBER))
    suggested = float(np.mean(w * u**2) / np.mean(w))
    inside = float(np.mean(np.abs(u) < HUBER))
    if not suggested > 0 or inside < 0.5:
        return 1.0
    return max(1.0, float(np.mean((w * u) ** 2)) / inside**2 / suggested)


def _search(x: np.ndarray, y: np.ndarray, w: np.ndarray, fastest: float, ratios: np.ndarray) -> tuple[Decay, float]:
    """The best curve with a ratio among `ratios`, which is refined if there are several."""
    rates = np.geomspace(SLOWEST, fastest, RATES)
    best, lowest = Decay(1.0, 1.0, float(np.average(y, weights=w)), 0.0), np.inf
    for _ in range(4):
        rate, ratio = (grid.ravel() for grid in np.meshgrid(rates, ratios, indexing="ij"))
        found = project(x, y, w, rate, ratio)
        i = int(np.argmin(found[:, 0]))
        if found[i, 0] < lowest:
            lowest, best = float(found[i, 0]), Decay(float(rate[i]), float(ratio[i]), *map(float, found[i, 1:]))
        rates = _around(rates, best.rate)
        ratios = 1 + _around(ratios - 1, best.ratio - 1) if ratios.size > 1 else ratios
    if not np.isfinite(lowest):
        lowest = float(w @ (y - best.floor) ** 2)
    return best, lowest


def _around(grid: np.ndarray, value: float) -> np.ndarray:
    """A finer grid, between the neighbours of a value of it."""
    i = int(np.argmin(np.abs(grid - value)))
    return np.geomspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], 17)

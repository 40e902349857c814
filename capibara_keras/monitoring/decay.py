"""A curve that falls towards a floor: one family with the exponential and all power laws, and what data say of it.

    L(t) = c + a φ(t),   φ(t) = exp(-ρ q log(1 + (q-1) t/T) / (q-1)),   a > 0, q >= 1

T is the time of the last point. With q = 1 + T/t₀ and p = ρ q / (q-1) this is the power law (1 + t/t₀)^-p; its limit
q → 1 is the exponential exp(-ρ t/T). ρ/T is how fast the excess L - c shrinks at the end, relative to itself; q says
how much faster it did so at the start. For given (ρ, q), c and a are linear: variable projection (Golub and Pereyra
1973) leaves two parameters, which are searched on grids. All the curves that the data allow give the intervals
(profile likelihood; Bates and Watts 1988, section 6.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from capibara_keras.monitoring import robust

__all__ = ["Decay", "Fit", "fit", "profile"]

BINS = 64
WIDTH = 4
"""Points in the narrowest bin, if there are enough: one wild value among them does not count."""
RATES, RATIOS = 56, 28
"""Grid over ρ and q."""
SLOWEST = 0.02
"""Lowest ρ: a fall this straight cannot be told from a line."""
STEEPEST = 3e4
"""Highest q: t₀ = T / STEEPEST."""
NEAREST = 1e-3
"""Lowest q - 1 of what counts as a power law."""
DONE = 0.01
"""Share of the initial excess at which a curve counts as converged."""
HUBER = 1.5
"""Residuals beyond this many deviations lose weight (Huber 1964)."""
EXACT = 1e-6
"""Residuals below this share of the span of the data are rounding."""
FALLS = 7.0
"""Quantile of F(3, ∞) at which a constant is rejected: p = 1e-4."""
BENDS = 6.6
"""Quantile of F(1, ∞) at which an exponential is: p = .01."""


@dataclass(frozen=True)
class Decay:
    """One curve of the family.

    Args:
        rate: ρ.
        ratio: q.
        floor, excess: c and a.

    >>> round(Decay(rate=4.6051702, ratio=1.0, floor=0.0, excess=1.0).remaining, 4)
    0.01
    """

    rate: float
    ratio: float
    floor: float
    excess: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """L at x = t/T."""
        return self.floor + self.excess * np.exp(_log_shape(x, np.array([self.rate]), np.array([self.ratio])))[0]

    @property
    def remaining(self) -> float:
        """What is left of the initial excess at x = 1."""
        return float(np.exp(_log_shape(np.ones(1), np.array([self.rate]), np.array([self.ratio])))[0, 0])


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


def _log_shape(x: np.ndarray, rate: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """log φ, a row for each pair of parameters."""
    beyond = np.maximum(ratio - 1, 1e-9)[:, None]
    return -(rate * ratio)[:, None] * np.log1p(beyond * x) / beyond


def _project(x: np.ndarray, y: np.ndarray, w: np.ndarray, rate: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Rows (rss, c, a) of the best c and a > 0 for each pair (ρ, q); rss is infinite where the best a is not."""
    with np.errstate(under="ignore"):
        phi = np.exp(_log_shape(x, rate, ratio))
    share = w / w.sum()
    mean, level = phi @ share, float(y @ share)
    centred, rest = phi - mean[:, None], y - level
    power = (centred**2) @ w
    a = np.divide(centred @ (w * rest), power, out=np.zeros_like(power), where=power > 1e-30)
    rss = ((rest - a[:, None] * centred) ** 2) @ w
    return np.stack([np.where(a > 0, rss, np.inf), level - a * mean, a], axis=1)


# The best curve ----------------------------------------------------------------------------------------------


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
        found = _project(x, y, w, rate, ratio)
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


# All curves that the data allow ------------------------------------------------------------------------------


def profile(found: Fit) -> np.ndarray:
    """Rows (ρ, q, c, a): for each of many q the lowest and the highest ρ that the data allow at 95%."""
    limit = found.lowest * (1 + found.spread * robust.student(found.freedom) ** 2 / found.freedom)
    beyond, best = np.geomspace(NEAREST, STEEPEST, 40), found.best
    rows = [np.array([[best.rate, best.ratio, best.floor, best.excess]]), _edges(found, limit, np.ones(1))]
    for _ in range(2):
        ends = _edges(found, limit, 1 + beyond)
        rows.append(ends)
        if not len(ends):
            near = max(best.ratio - 1, NEAREST)
            beyond = np.geomspace(near / 2, near * 2, 24)
            continue
        step = beyond[1] / beyond[0]
        beyond = np.geomspace((ends[:, 1].min() - 1) / step, min((ends[:, 1].max() - 1) * step, STEEPEST), 24)
    return np.concatenate(rows)


def _edges(found: Fit, limit: float, ratios: np.ndarray) -> np.ndarray:
    """Rows (ρ, q, c, a) where the sum of squares crosses the limit, two for each of the ratios that get below it."""
    rates = np.tile(np.geomspace(SLOWEST, max(20.0, 3 * found.best.rate), 48), (len(ratios), 1))
    low, best, high = rates[:, 0], rates[:, 0], rates[:, -1]
    for _ in range(3):
        rss = _table(found, rates, ratios)
        i = np.argmin(rss, axis=1)
        best, here = np.take_along_axis(rates, i[:, None], 1)[:, 0], np.min(rss, axis=1)
        rates = _between(_at(rates, i - 1), _at(rates, i + 1))
    inside = here <= limit
    ratios, best, low, high = ratios[inside], best[inside], low[inside], high[inside]
    rows = []
    for end in (low, high):
        inner, outer = best, end
        for _ in range(3):  # from the best outward, the first that is beyond the limit
            rates = _between(inner, outer)
            beyond = _table(found, rates, ratios) > limit
            i = np.where(beyond.any(axis=1), np.argmax(beyond, axis=1), rates.shape[1] - 1)
            inner, outer = _at(rates, i - 1), _at(rates, i)
        rows.append(np.column_stack([outer, ratios, _project(found.x, found.y, found.weights, outer, ratios)[:, 1:]]))
    return np.concatenate(rows)


def _table(found: Fit, rates: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Sums of squares, for a row of rates per ratio."""
    pairs = rates.ravel(), np.repeat(ratios, rates.shape[1])
    return _project(found.x, found.y, found.weights, *pairs)[:, 0].reshape(rates.shape)


def _at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """rows[i, columns[i]], within the row."""
    return np.take_along_axis(rows, np.clip(columns, 0, rows.shape[1] - 1)[:, None], 1)[:, 0]


def _between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Twelve values from each start to each end."""
    return start[:, None] * (end / start)[:, None] ** np.linspace(0, 1, 12)

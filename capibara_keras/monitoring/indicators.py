"""What a history says of its gradients, losses, rates and weights: one number each."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import WINDOW, History
from capibara_keras.monitoring.robust import block_medians, deviation, kendall_tau, median

__all__ = [
    "explosion",
    "explosion_risk",
    "parameter_stability",
    "prefix",
    "progress",
    "rate_stability",
    "smoothness",
    "typical_ratios",
    "vanishing",
    "vanishing_risk",
]

MINIMUM = 20
"""Norms that a statistic of norms needs."""

BLOCKS = 16


def typical_ratios(history: History, measurements: int = 10) -> np.ndarray:
    """Median update ratio of each layer over the last measurements; `nan` for layers that have none."""
    rows = history.update_ratios(measurements)
    return median_of_columns(rows) if len(rows) else np.full(len(history.subject.layers), np.nan)


def smoothness(losses: np.ndarray) -> float:
    """1 - von Neumann's ratio / 4, at least 0; 1 for a constant.

    >>> round(smoothness(np.tile([0.0, 1.0], 50)), 2), smoothness(np.ones(10))
    (0.01, 1.0)
    """
    if len(losses) < 10:
        return math.nan
    variance = np.sum((losses - losses.mean()) ** 2)
    if variance <= (1e-12 * np.abs(losses).max()) ** 2:
        return 1.0
    return float(max(0.0, 1 - np.sum(np.diff(losses) ** 2) / (4 * variance)))


def progress(losses: np.ndarray) -> float:
    """(1 - Kendall's τ of 16 block medians) / 2.

    >>> progress(np.arange(32.0, 0.0, -1.0))
    1.0
    """
    if len(losses) < 2 * BLOCKS:
        return math.nan
    return (1 - kendall_tau(block_medians(losses, BLOCKS))) / 2


def explosion(history: History) -> tuple[float, float]:
    """How many powers of ten the last gradient is above the median before it, and how many deviations that is."""
    before = np.log10(np.maximum(history.gradients.before(WINDOW), 1e-300))
    if len(before) < MINIMUM:
        return math.nan, math.nan
    excess = math.log10(max(history.latest.gradient_norm, 1e-300)) - median(before)
    return excess, excess / max(deviation(before), 0.05)


def explosion_risk(history: History) -> float:
    """½ at 10 times the median and 1 at 100 times, if that is far outside of the usual; 1 for what is not finite."""
    x = history.latest
    if math.isnan(x.gradient_norm):
        return math.nan
    scale = history.measured.last(1)[0, 1] if len(history.measured) else math.inf
    if math.isinf(x.gradient_norm) or x.gradient_norm > 1e4 * scale > 0:
        return 1.0
    excess, deviations = explosion(history)
    if math.isnan(excess):
        return math.nan
    return min(1.0, max(0.0, excess) / 2) if deviations > 3 else 0.0


def prefix(rms: np.ndarray, matrices: np.ndarray, limit: float) -> np.ndarray:
    """Layers from the input on whose gradient is below `limit` of the largest; none if there is one layer only.

    A prefix, because attention's queries and keys are that small in a healthy transformer, but not the layers before.

    >>> prefix(np.array([1e-6, 1e-4, 1.0]), np.ones(3, bool), 1e-3).tolist()
    [0, 1]
    """
    known = np.flatnonzero(matrices & ~np.isnan(rms))
    if len(known) < 2 or not rms[known].max() > 0:
        return known[:0]
    small = rms[known] < limit * rms[known].max()
    return known[: len(known) if small.all() else int(np.argmin(small))]


def vanishing(history: History, limit: float) -> tuple[np.ndarray, float]:
    """Layers at the input with a small gradient, and the powers of ten by which the smallest is below the largest."""
    if len(history.layer_gradients) < MINIMUM:
        return np.zeros(0, np.int64), math.nan
    rms = gradient_rms(history)
    found = prefix(rms, history.subject.matrices, limit)
    if not len(found):
        return found, 0.0
    largest = np.nanmax(rms[history.subject.matrices])
    return found, math.log10(largest) - math.log10(max(rms[found].min(), 1e-300))


def gradient_rms(history: History) -> np.ndarray:
    """Median over the window of each layer's gradient, as a root mean square over its entries."""
    return median_of_columns(history.layer_gradients.last()) / np.sqrt(history.subject.sizes)


def vanishing_risk(history: History) -> float:
    """0 up to a factor of 10, 1 from a factor of 1000 on. A gradient that is 0 everywhere says nothing."""
    _, powers = vanishing(history, 0.1)
    if len(history.gradients) and not history.gradients.last().any():
        return math.nan
    return powers if math.isnan(powers) else min(max((powers - 1) / 2, 0.0), 1.0)


def rate_stability(history: History) -> float:
    """1 - the largest change of the rate within W, in powers of ten; the first 20 updates and rates of 0 do not
    count."""
    rates = history.rates.last()
    skip = max(0, MINIMUM - (history.rates.count - len(rates)))
    rates = rates[skip:]
    if len(rates) < 2:
        return math.nan
    usable = (rates[:-1] > 0) & (rates[1:] > 0)
    if not usable.any():
        return 1.0
    return 1 - min(1.0, float(np.abs(np.log10(rates[1:][usable] / rates[:-1][usable])).max()))


def parameter_stability(history: History) -> float:
    """1 - twice the largest relative change of a layer's norm between now and W updates ago."""
    updates = history.measured.last()[:, 0]
    if len(history.layer_parameters) < 2 or updates[-1] - updates[0] < WINDOW:
        return math.nan
    now, then = history.layer_parameters.last(), np.searchsorted(updates, updates[-1] - WINDOW, side="right") - 1
    before = now[then]
    usable = history.subject.matrices & (before > 0) & ~np.isnan(now[-1])
    if not usable.any():
        return math.nan
    change = np.abs(now[-1][usable] / before[usable] - 1).max()
    return 1 - min(1.0, float(change) / 0.5)


def median_of_columns(rows: np.ndarray) -> np.ndarray:
    """Medians without `nan`; of columns that have nothing else, `nan`. Sorting puts `nan` last."""
    ordered, columns = np.sort(rows, axis=0), np.arange(rows.shape[1])
    known = np.count_nonzero(~np.isnan(rows), axis=0)
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    high = np.minimum(high, len(rows) - 1)
    return (ordered[low, columns] + ordered[np.where(known > 0, high, low), columns]) / 2

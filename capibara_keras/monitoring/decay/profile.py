"""All curves of the family that the data allow."""

from __future__ import annotations

import numpy as np

from capibara_keras.monitoring import robust
from capibara_keras.monitoring.decay.family import SLOWEST, STEEPEST, project
from capibara_keras.monitoring.decay.fitting import Fit

__all__ = ["profile"]

NEAREST = 1e-3
"""Lowest q - 1 of what counts as a power law."""


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
        rows.append(np.column_stack([outer, ratios, project(found.x, found.y, found.weights, outer, ratios)[:, 1:]]))
    return np.concatenate(rows)


def _table(found: Fit, rates: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Sums of squares, for a row of rates per ratio."""
    pairs = rates.ravel(), np.repeat(ratios, rates.shape[1])
    return project(found.x, found.y, found.weights, *pairs)[:, 0].reshape(rates.shape)


def _at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """rows[i, columns[i]], within the row."""
    return np.take_along_axis(rows, np.clip(columns, 0, rows.shape[1] - 1)[:, None], 1)[:, 0]


def _between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Twelve values from each start to each end."""
    return start[:, None] * (end / start)[:, None] ** np.linspace(0, 1, 12)

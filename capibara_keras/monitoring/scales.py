"""Scales of axes: logarithmic or from 0, by what the numbers span; whole numbers for updates."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["count", "from_zero", "scale", "spans"]

WIDE = 20.0
"""Positive numbers that span more than this factor are shown on a log axis."""


def spans(values: np.ndarray) -> bool:
    """Whether positive numbers span more than a factor of 20.

    >>> spans(np.array([1.0, 30.0])), spans(np.array([0.0, 30.0])), spans(np.zeros(0))
    (True, False, False)
    """
    return len(values) > 0 and bool((values > 0).all()) and bool(values.max() > WIDE * values.min())


def scale(axes: Any, *series: np.ndarray) -> None:
    """A log axis, where positive numbers span so much that it shows them better; zeros have no place on it."""
    values = np.concatenate([np.ravel(s) for s in series])
    if spans(values[np.isfinite(values) & (values != 0)]):
        axes.set_yscale("log", nonpositive="mask")


def from_zero(axes: Any, series: np.ndarray) -> None:
    """A linear axis from 0, on which a constant is one and a cosine is one."""
    known = series[np.isfinite(series)]
    if len(known) and known.max() > 0 <= known.min():
        axes.set_ylim(0, 1.15 * known.max())


def count(axis: Any) -> None:
    """Whole numbers at the ticks of an axis of updates."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

"""Which scale an axis has: of numbers, and of updates."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["count", "scale", "spans"]

FACTOR = 20.0
"""Positive numbers that span more than this are shown on a log axis."""


def spans(values: np.ndarray) -> bool:
    """Whether positive numbers span more than a factor of 20.

    >>> spans(np.array([1.0, 30.0])), spans(np.array([0.0, 30.0])), spans(np.zeros(0))
    (True, False, False)
    """
    return len(values) > 0 and bool((values > 0).all()) and bool(values.max() > FACTOR * values.min())


def scale(axes: Any, *series: np.ndarray) -> None:
    """A log axis, where positive numbers span so much that it shows them better; zeros have no place on it."""
    values = np.concatenate([np.ravel(s) for s in series])
    if spans(values[np.isfinite(values) & (values > 0)]):
        axes.set_yscale("log", nonpositive="mask")


def count(axis: Any) -> None:
    """Whole numbers at the ticks of an axis of updates."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

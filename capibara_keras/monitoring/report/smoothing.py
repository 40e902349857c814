"""The course of a noisy series: a smoothed line, and the band that most of it lies in."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["FEWEST", "band", "smoothed"]

FEWEST = 20
"""Points below which a smoothed line would say more than they do."""

WIDTH = 0.02
"""Standard deviation of the kernel, as a share of the points."""

NEARBY = 1 / 40
"""Half of the neighbourhood that a band is of, as a share of the points."""


def smoothed(y: np.ndarray) -> np.ndarray:
    """Medians of five, then a line fitted around each point (local linear regression, Cleveland 1979, with a Gaussian
    kernel): a mean of neighbours would lie beside a steep curve, and at its ends.

    Args:
        y: finite numbers, at least `FEWEST`.

    >>> line = np.arange(50.0)
    >>> bool(np.allclose(smoothed(line)[2:-2], line[2:-2], atol=0.2))
    True
    """
    padded = np.pad(y, 2, mode="edge")
    calm = np.median(np.stack([padded[i : i + len(y)] for i in range(5)]), axis=0)
    width = max(1.0, WIDTH * len(y))
    d = np.arange(-math.ceil(3 * width), math.ceil(3 * width) + 1)
    kernel = np.exp(-((d / width) ** 2) / 2)
    ones = np.ones(len(y))
    s0, s1, s2 = (np.correlate(ones, kernel * d**k, "same") for k in range(3))
    t0, t1 = (np.correlate(calm, kernel * d**k, "same") for k in range(2))
    return np.asarray((s2 * t0 - s1 * t1) / (s0 * s2 - s1**2))


def band(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """10th and 90th percentile of the neighbourhood of each number.

    >>> low, high = band(np.arange(20.0))
    >>> low[10], high[10]
    (np.float64(6.0), np.float64(14.0))
    """
    half = max(5, int(NEARBY * len(y)))
    padded = np.pad(y, half, mode="reflect" if len(y) > half else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    low, high = np.percentile(windows, (10, 90), axis=1)
    return low, high

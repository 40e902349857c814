"""Robust statistics of short series, and a ring that holds one."""

from __future__ import annotations

import numpy as np

__all__ = ["Ring", "block_medians", "deviation", "kendall_tau", "median", "rank_correlation", "slope_interval"]


class Ring:
    """The last `size` rows of a series. The last n of them are a view: nothing is copied.

    Each row is kept twice, `size` places apart, so that any window lies in one piece.

    >>> ring = Ring(3)
    >>> for x in (1.0, 2.0, 3.0, 4.0):
    ...     ring.push(x)
    >>> ring.last().tolist(), ring.last(2).tolist(), len(ring)
    ([2.0, 3.0, 4.0], [3.0, 4.0], 3)
    """

    def __init__(self, size: int, *shape: int) -> None:
        self._rows = np.full((2 * size, *shape), np.nan)
        self._size, self.count = size, 0

    def __len__(self) -> int:
        return min(self.count, self._size)

    def push(self, row: float | np.ndarray) -> None:
        """Put a row behind the others, in the place of the oldest."""
        place = self.count % self._size
        self._rows[place] = self._rows[place + self._size] = row
        self.count += 1

    def last(self, n: int | None = None) -> np.ndarray:
        """The last n rows, or as many as there are, oldest first."""
        n = len(self) if n is None else min(n, len(self))
        end = (self.count - 1) % self._size + self._size + 1
        return self._rows[end - n : end]

    def before(self, n: int) -> np.ndarray:
        """The last n rows but the newest."""
        return self.last(n + 1)[:-1]


def median(x: np.ndarray) -> float:
    """The median; `nan` of nothing. Several times faster on short series than NumPy's.

    >>> median(np.array([3.0, 1.0, 2.0, 10.0]))
    2.5
    """
    n = len(x)
    if not n:
        return float("nan")
    ordered = np.sort(x)
    return float(ordered[n // 2]) if n % 2 else float(ordered[n // 2 - 1] + ordered[n // 2]) / 2


def deviation(x: np.ndarray) -> float:
    """Median absolute deviation from the median.

    >>> deviation(np.array([1.0, 2.0, 3.0, 100.0]))
    1.0
    """
    return median(np.abs(x - median(x)))


def block_medians(x: np.ndarray, blocks: int) -> np.ndarray:
    """Medians of blocks of equal length; the oldest values that do not fill one are left out.

    >>> block_medians(np.arange(7.0), 3).tolist()
    [1.5, 3.5, 5.5]
    """
    length = len(x) // blocks
    return np.median(x[len(x) - blocks * length :].reshape(blocks, length), axis=1)


def kendall_tau(x: np.ndarray) -> float:
    """Kendall's rank correlation (tau-a) of a series with its order: 1 if it only rises, -1 if it only falls.

    >>> kendall_tau(np.array([3.0, 2.0, 1.0]))
    -1.0
    """
    n = len(x)
    signs = np.sign(x[None, :] - x[:, None])
    return float(np.triu(signs, 1).sum()) / (n * (n - 1) / 2)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's, without ties; 0 where one of them is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 1000.0]))
    1.0
    """
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return 0.0
    return round(float(np.corrcoef(np.argsort(np.argsort(x)), np.argsort(np.argsort(y)))[0, 1]), 12)


def slope_interval(x: np.ndarray) -> tuple[float, float]:
    """95 % interval of the Theil-Sen slope per element (Sen 1968): quantiles of the pairwise slopes, as many as
    Kendall's S leaves open.

    >>> slope_interval(np.arange(10.0))
    (1.0, 1.0)
    """
    n = len(x)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((x[j] - x[i]) / (j - i))
    half = 1.96 * (n * (n - 1) * (2 * n + 5) / 18) ** 0.5 / 2
    middle = len(slopes) / 2
    low, high = max(int(middle - half), 0), min(int(middle + half), len(slopes) - 1)
    return float(slopes[low]), float(slopes[high])

"""A series of which only the end is kept."""

from __future__ import annotations

import numpy as np

__all__ = ["Ring"]


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

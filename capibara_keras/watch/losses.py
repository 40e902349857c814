"""Losses of steps, until it is known to which updates they belong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

__all__ = ["PendingLosses"]

Loss = float | None


class PendingLosses:
    """The losses of the steps since the last update.

    >>> pending = PendingLosses()
    >>> pending.add([1.0, 3.0, 5.0])
    >>> pending.take(updates=1, micro_batches_left=1), pending.take(updates=1)
    ([2.0], [5.0])
    """

    def __init__(self) -> None:
        self._losses: list[Loss] = []

    def add(self, loss: Any) -> None:
        """The loss of one step, or a list of those of several; `None` for one that is not known."""
        if loss is not None:
            self._losses += [_number(x) for x in (loss if _several(loss) else [loss])]

    def take(self, updates: int, micro_batches_left: int = 0) -> list[float]:
        """The loss of each of so many updates; those of the micro-batches after the last one stay."""
        used = max(0, len(self._losses) - micro_batches_left)
        losses, self._losses = self._losses[:used], self._losses[used:]
        return spread(losses, updates)


def spread(losses: Sequence[Loss], updates: int) -> list[float]:
    """The loss of each update, from those of the steps since: means where there were more steps, the last ones where
    there were fewer; nan where it is not known.

    >>> spread([1.0, 3.0, 5.0, None], 2), spread([2.0], 3)
    ([2.0, nan], [nan, nan, 2.0])
    """
    values = np.array([math.nan if x is None else x for x in losses], np.float64)
    if len(values) < updates:
        return [math.nan] * (updates - len(values)) + values.tolist()
    return [math.inf if np.isinf(part).any() else float(part.mean()) for part in np.array_split(values, updates)]


def _several(loss: Any) -> bool:
    return isinstance(loss, (list, tuple)) or len(getattr(loss, "shape", ())) > 0


def _number(loss: Any) -> Loss:
    """A loss as a float; inf if it is not finite."""
    if loss is None:
        return None
    value = float(ops.convert_to_numpy(loss))
    return value if math.isfinite(value) else math.inf

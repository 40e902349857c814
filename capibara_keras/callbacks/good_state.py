"""Copies of weights and optimizer state from when all was well."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from keras import ops

__all__ = ["GoodStates"]


class _Copy(NamedTuple):
    update: int
    arrays: list[np.ndarray]


class GoodStates:
    """The last two copies of a model's weights and of its optimizer's state, in the host's memory.

    Args:
        model: compiled.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.copies: deque[_Copy] = deque(maxlen=2)

    @property
    def latest(self) -> int:
        """The update of the last copy; -1 if there is none."""
        return self.copies[-1].update if self.copies else -1

    def fits(self) -> bool:
        """Whether there is a copy, of all variables: `fit` may build a model in its first batch."""
        return bool(self.copies) and len(self.copies[-1].arrays) == len(self._variables())

    def keep(self, update: int) -> None:
        """Copy the state as it is after `update` updates."""
        if not self.fits():
            self.copies.clear()
        self.copies.append(_Copy(update, [np.array(ops.convert_to_numpy(v)) for v in self._variables()]))

    def restore(self, before: int) -> int:
        """Bring back the last copy from `before` that update or earlier, or the oldest.

        Returns:
            Its update.
        """
        good = [copy for copy in self.copies if copy.update <= before] or [self.copies[0]]
        update, arrays = good[-1]
        for variable, array in zip(self._variables(), arrays, strict=True):
            variable.assign(array)
        while self.copies[-1].update > update:
            self.copies.pop()
        return update

    def _variables(self) -> list[Any]:
        return [*self.model.weights, *self.model.optimizer.variables]

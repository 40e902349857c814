"""A progress bar for what takes long, and nothing for what does not."""

from __future__ import annotations

import math
import time

import keras

__all__ = ["Progress"]

PATIENCE = 2.0
"""Seconds without a bar."""


class Progress:
    """Keras' progress bar, once it is clear that there is something to wait for.

    Args:
        total: steps.
        shown: whether to show anything.
        unit: what a step is.
    """

    def __init__(self, total: int, shown: bool, unit: str) -> None:
        self.total, self.shown, self.unit = total, shown, unit
        self.done, self._began = 0, math.inf
        self._bar: keras.utils.Progbar | None = None

    def step(self) -> None:
        """One more is done. Time counts from the first on, which may have compiled something."""
        self.done += 1
        self._began = min(self._began, time.monotonic())
        if self._bar is None and self.shown and self.done < self.total and time.monotonic() - self._began > PATIENCE:
            self._bar = keras.utils.Progbar(self.total, unit_name=self.unit)
        if self._bar is not None:
            self._bar.update(self.done)

    def end(self) -> None:
        """There will be no more steps; a bar that is not full ends its line."""
        if self._bar is not None and self.done < self.total:
            self._bar.update(self.done, finalize=True)

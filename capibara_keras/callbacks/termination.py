"""SIGTERM that waits until a run has been saved."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

__all__ = ["Termination"]


class Termination:
    """Holds SIGTERM back while `fit` of a model runs; its first one is kept, a second one ends the process.

    Attributes:
        is_due: whether one has come.
    """

    def __init__(self) -> None:
        self.is_due = False
        self._model: Any = None
        self._usual: Any = None

    def hold(self, model: Any) -> None:
        """From now on. Only the main thread can: elsewhere nothing changes."""
        if threading.current_thread() is threading.main_thread():
            self.release()  # an earlier fit may have ended by an error
            self.is_due, self._model = False, model
            self._usual = signal.signal(signal.SIGTERM, self._on_signal)

    def release(self) -> None:
        """SIGTERM does again what it did before."""
        if self._usual is not None:
            signal.signal(signal.SIGTERM, self._usual)
            self._usual = self._model = None

    def go_on(self) -> None:
        """End the process as the signal would have."""
        self.release()
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_signal(self, number: int, frame: Any) -> None:
        """Wait for the next batch, if there will be one: an error may have ended `fit` without `on_train_end`."""
        if self.is_due or not self._is_in_fit(frame):
            self.go_on()
        self.is_due = True

    def _is_in_fit(self, frame: Any) -> bool:
        """Whether what the main thread does now was called by `fit` of this model."""
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is self._model:
                return True
            frame = frame.f_back
        return False

"""What the optimizer measured, in Keras' logs."""

from __future__ import annotations

import keras
import numpy as np

from capibara_keras import errors
from capibara_keras.callbacks.attach import Attach

__all__ = ["LogStatistics"]

NAMES = (
    "learning_rate",
    "gradient_norm",
    "update_ratio",
    "clip_threshold",
    "clipped_share",
    "skipped",
    "clipped",
    "micro_steps",
)


class LogStatistics(Attach):
    """Adds `learning_rate` and `gradient_norm` to Keras' logs, so that the progress bar, `History`, `CSVLogger`
    and TensorBoard show them.

    Args:
        every: batches between two readings. A reading waits for the device, so a large value lets Keras run ahead.
        names: of "learning_rate", "gradient_norm", "update_ratio" (change of the weights as a share of their norm, when
            it was last measured: `HealthMonitor` or `statistics_every` have it measured), "clip_threshold",
            "clipped_share" (of the last 100 updates), "skipped" and "clipped" (updates so far), "micro_steps"
            (micro-batches so far).

    Raises:
        ConfigError: an unknown name, or `every` below 1.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(ck.Adam(learning_rate=0.5), "mse")
    >>> history = model.fit(np.ones((8, 1)), np.ones((8, 1)), verbose=0, callbacks=[ck.LogStatistics()])
    >>> history.history["learning_rate"]
    [0.5]
    """

    def __init__(self, every: int = 1, names: tuple[str, ...] = ("learning_rate", "gradient_norm")) -> None:
        super().__init__()
        self.every = errors.integer("every", every, 1)
        self.names = tuple(errors.choice("names", name, NAMES) for name in names)
        self._latest: dict[str, float] = {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """On JAX, read here: when a batch ends, the next one may have taken the state already."""
        super().on_train_batch_begin(batch, logs)
        if keras.backend.backend() == "jax" and batch and batch % self.every == 0:
            self._refresh()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Put the latest reading into the logs: of this batch if it is an `every`-th, on JAX of the one before."""
        if keras.backend.backend() != "jax" and (not self._latest or (batch + 1) % self.every == 0):
            self._refresh()
        if logs is not None:
            logs.update(self._latest)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Put the state at the end of the epoch into its logs."""
        super().on_epoch_end(epoch, logs)
        self._refresh()
        if logs is not None:
            logs.update(self._latest)

    def read(self) -> dict[str, float]:
        """What goes into the logs; `nan` where no variable is trained."""
        if not self.optimizer.built:
            return dict.fromkeys(self.names, float("nan"))
        known = dict(self.optimizer.statistics()) | self.optimizer.counters()
        known["clipped_share"] = self.optimizer.clipped_share()
        if "update_ratio" in self.names:
            known["update_ratio"] = self._update_ratio()
        return {name: float(known[name]) for name in self.names}

    def _update_ratio(self) -> float:
        """Of the last update in which both norms were measured."""
        recent = self.optimizer.recent_updates().statistics
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = recent["update_norm"] / recent["parameter_norm"]
        known = ratios[np.isfinite(ratios)]
        return float(known[-1]) if len(known) else float("nan")

    def _refresh(self) -> None:
        self.synchronise()
        self._latest = self.read()

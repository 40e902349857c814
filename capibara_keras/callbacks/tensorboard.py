"""What the optimizer measured, for TensorBoard."""

from __future__ import annotations

import math
from pathlib import Path

from capibara_keras import errors
from capibara_keras.backend.summaries import SummaryWriter
from capibara_keras.callbacks.attach import Attach
from capibara_keras.callbacks.health_monitor import HealthMonitor
from capibara_keras.monitoring import OptimizationMetrics
from capibara_keras.watch import Watch

__all__ = ["TensorBoardStatistics"]

FOLDER = "health"
"""Below the given directory: Keras' own callback writes to "train" and "validation" beside it."""


class TensorBoardStatistics(Attach):
    """Writes the metrics of the optimizer, those of each layer, and alerts to event files for TensorBoard.

    Numbers are `health/<metric>` (see `OptimizationMetrics`), `health/loss`, and `health/layer/<name>/<metric>`; each
    alert is a text `health/alert/<id>`, at the update it is dated to. The step is the number of updates,
    `optimizer.iterations`. What is not known is not written.

    It writes to the directory `health` below `log_dir`, so that `keras.callbacks.TensorBoard` may have the same
    `log_dir`. The writer is TensorFlow's, on any backend; the package `tensorboard` is needed to look, not to write.

    Args:
        log_dir: as for Keras' callback.
        every: batches between two readings.
        layers: whether to write the numbers of each layer.
        monitor: a `HealthMonitor` in the same `fit`, before this one, whose readings are used. Without, this callback
            has one of its own, which says nothing.

    Raises:
        ConfigError: an argument out of range. When training begins: TensorFlow is not installed, the directory cannot
            be written, or holds event files of another writer.

    >>> import capibara_keras as ck, keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(ck.Adam(), "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     callback = ck.TensorBoardStatistics(folder, every=5)
    ...     _ = model.fit(np.ones((32, 1)), np.ones((32, 1)), batch_size=1, verbose=0, callbacks=[callback])
    ...     callback.directory.name, len(list(callback.directory.iterdir()))
    ('health', 1)
    """

    def __init__(
        self,
        log_dir: str | Path = "logs",
        every: int = 10,
        *,
        layers: bool = True,
        monitor: HealthMonitor | None = None,
    ) -> None:
        super().__init__()
        self.directory = Path(log_dir) / FOLDER
        self.every, self.layers = errors.integer("every", every, 1), errors.boolean("layers", layers)
        if monitor is not None and not isinstance(monitor, HealthMonitor):
            raise errors.ConfigError(f"monitor: expected a HealthMonitor, received {monitor!r}")
        self.monitor = monitor or HealthMonitor(every=min(self.every, 64), print_fn=lambda text: None)
        self._drives = monitor is None
        self._writer: SummaryWriter | None = None
        self._last, self._written, self._alerts = 0, -1, 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Open the file."""
        super().on_train_begin(logs)
        if self._writer is not None:  # the last `fit` ended with an error
            self._writer.close()
        self._writer = SummaryWriter(self.directory)
        self._last, self._alerts = 0, self.monitor.raised
        if self._drives:
            self.monitor.set_model(self.model)
            self.monitor.set_params(self.params)
            self.monitor.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Batches count from 0 again."""
        super().on_epoch_begin(epoch, logs)
        self._last = 0
        if self._drives:
            self.monitor.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Write what was read of the batches before."""
        super().on_train_batch_begin(batch, logs)
        if self._drives:
            self.monitor.on_train_batch_begin(batch, logs)
        if batch - self._last >= self.every:
            self._last = batch
            self._write()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """The monitor keeps the loss, where the optimizer does not know it."""
        if self._drives:
            self.monitor.on_train_batch_end(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the rest of the epoch, and have all of it in the file."""
        super().on_epoch_end(epoch, logs)
        if self._drives:
            self.monitor.on_epoch_end(epoch, logs)
        self._write()
        if self._writer is not None:
            self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Close the file."""
        super().on_train_end(logs)
        if self._drives:
            self.monitor.on_train_end(logs)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self) -> None:
        watch = self.monitor.watch
        if self._writer is None or watch is None:
            return
        new, self._alerts = self.monitor.raised - self._alerts, self.monitor.raised
        alerts = self.monitor.alerts[-new:] if new else []
        for alert in alerts:
            self._writer.write(max(alert.step, 0), {}, {f"health/alert/{alert.id}": str(alert)})
        if alerts:  # training may end soon
            self._writer.flush()
        if not watch.observations:
            return
        latest = watch.observations[-1]
        step = latest.update + (not latest.skipped)
        if step != self._written:
            self._writer.write(step, _numbers(watch, self.layers))
            self._written = step


def _numbers(watch: Watch, layers: bool) -> dict[str, float]:
    """What is known now, by tag. Infinite values are: TensorBoard marks them."""
    metrics: OptimizationMetrics = watch.metrics()
    found = {f"health/{name}": value for name, value in metrics.items() if isinstance(value, float)}
    found["health/loss"] = watch.observations[-1].loss
    for layer, numbers in metrics.layers.items() if layers else ():
        found |= {f"health/layer/{layer}/{name}": value for name, value in numbers.items()}
    return {tag: float(value) for tag, value in found.items() if not math.isnan(value)}

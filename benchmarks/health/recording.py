"""Runs a training in `fit` with `HealthMonitor`, and keeps what it saw and said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.health.training import Training
from capibara_keras import HealthMonitor
from capibara_keras.monitoring import Alert, Observation, Subject

__all__ = ["Epoch", "Recording", "record"]

EPOCHS = 10
"""Rounds that a training is cut into, for rules that look once per round."""


@dataclass
class Epoch:
    """What AUTOTRAINER looks at: once per epoch, gradients of one batch."""

    update: int
    loss: float
    validation_loss: float
    accuracy: float
    validation_accuracy: float
    first_norm: float
    last_norm: float
    zero_fraction: float
    finite: bool


@dataclass
class Recording:
    """A training as a stream of observations, and the alerts that the callback gave."""

    subject: Subject
    onset: int = 0
    observations: list[Observation] = field(default_factory=list)
    validations: dict[int, float] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)


class _Recorder(keras.callbacks.Callback):
    """Stands behind the monitor, and writes down what it was given."""

    async_safe = True

    def __init__(self, training: Training, monitor: HealthMonitor, seed: int) -> None:
        super().__init__()
        self.training, self.monitor = training, monitor
        self.observations: list[Observation] = []
        self.validations: dict[int, float] = {}
        self.epochs: list[Epoch] = []
        self._last: Any = None
        self._batches = training.batches(seed)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._copy()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._copy()
        if not self.observations:
            return
        update = self.observations[-1].update
        if "val_loss" in (logs or {}):
            self.validations[update] = float(logs["val_loss"])
        self.epochs.append(epoch_of(self.training, update, next(self._batches)))

    def _copy(self) -> None:
        watch = self.monitor.watch
        if watch is not None and watch.observations is not self._last:
            self._last = watch.observations
            self.observations += watch.observations


def record(training: Training, seed: int) -> Recording:
    """Train, and write down."""
    model, data = training.model, training.data
    loss = keras.losses.get(training.loss) if isinstance(training.loss, str) else training.loss
    micro = getattr(training.optimizer, "gradient_accumulation_steps", None) or 1
    model.compile(training.optimizer, loss, auto_scale_loss=False)  # Keras would wrap it for float16
    batches = training.batches(seed)
    if training.warm_up:
        model.fit(batches, steps_per_epoch=training.warm_up, verbose=0)
        batches = training.batches(seed)
    baseline = None if np.isnan(training.baseline) else training.baseline
    monitor = HealthMonitor(baseline_loss=baseline, print_fn=lambda text: None)
    recorder = _Recorder(training, monitor, seed + 1)
    model.fit(
        batches,
        steps_per_epoch=max(1, training.updates // EPOCHS) * micro,
        epochs=EPOCHS,
        validation_data=(data.x_validation, data.y_validation) if training.watch_validation else None,
        verbose=0,
        callbacks=[monitor, recorder],
    )
    assert monitor.watch is not None
    return Recording(
        monitor.watch.monitor.subject,
        training.onset,
        recorder.observations,
        recorder.validations,
        recorder.epochs,
        monitor.alerts,
    )


def norm(g: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(np.asarray(g, np.float64)))))


def epoch_of(training: Training, update: int, batch: tuple[np.ndarray, np.ndarray]) -> Epoch:
    """What AUTOTRAINER sees at the end of an epoch."""
    data, task, model = training.data, training.task, training.model
    loss_of = keras.losses.get(training.loss) if isinstance(training.loss, str) else training.loss
    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(loss_of(batch[1], model(batch[0], training=True)))
    known = [np.asarray(tf.convert_to_tensor(g)) for g in tape.gradient(loss, variables) if g is not None]
    kernels = [norm(g) for g in known if g.ndim >= 2]
    z, zv = (np.asarray(model(x[:500])) for x in (data.x, data.x_validation))
    values = [float(np.mean(loss_of(y, p))) for y, p in ((data.y[:500], z), (data.y_validation[:500], zv))]
    return Epoch(
        update=update,
        loss=values[0],
        validation_loss=values[1],
        accuracy=accuracy(task.classes, data.y[:500], z),
        validation_accuracy=accuracy(task.classes, data.y_validation[:500], zv),
        first_norm=kernels[0],
        last_norm=kernels[-1],
        zero_fraction=sum(float((g == 0).sum()) for g in known) / sum(g.size for g in known),
        finite=all(np.isfinite(g).all() for g in known) and all(np.isfinite(np.asarray(v)).all() for v in variables),
    )


def accuracy(classes: int, y: np.ndarray, z: np.ndarray) -> float:
    """Of a classification; unknown for a regression."""
    if not classes:
        return float("nan")
    if z.shape[-1] == 1:
        return float(((z > 0) == (y > 0.5)).mean())
    return float((z.argmax(-1) == y).mean())

"""What monitoring remembers: rings of numbers, never of tensors, of a size that does not grow."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.observation import Observation, Probe, Subject
from capibara_keras.monitoring.order import BatchOrder
from capibara_keras.monitoring.ring import Ring
from capibara_keras.monitoring.robust import median

__all__ = ["ARRIVALS", "WINDOW", "History"]

ARRIVALS = ("update", "loss", "measurement", "probe", "validation")
"""Kinds of news that a rule may wait for."""

WINDOW = 100
"""Updates that a windowed statistic looks back on."""

LOSSES = 1000
START, EARLY = 3, 30
"""Losses whose median is the loss at the start; and of how many it is, where the noise of three would decide."""

PROBES = 20
VALIDATIONS = 64
SMOOTHING = 1 - 1 / WINDOW


class History:
    """Recent observations of one training. Numbers that are not finite enter no ring; they are counted.

    Args:
        subject: what is known of the training.

    Attributes:
        updates: observations so far; `latest` the last, and `arrived` what it brought, see `ARRIVALS`.
        losses: the last 1000 known losses, and `loss_updates` their updates.
        first_loss: median of the first 3 losses, `early_loss` of the first 30; `start_loss` the very first.
        best_loss: lowest median of 8 losses.
        order: whether batches come in the same order in each epoch, and `best_epoch_loss` the lowest median of one;
            `begin_epoch` tells when.
        gradients: the last 100 norms of the gradient, and `layer_gradients` those of layers.
        peak_gradient: the largest norm before the last update.
        rates: the last 100 learning rates; `peak_rate` the largest ever.
        clipping: the last 100 (norm, limit, clipped).
        measured: the last 101 measurements (update, norm of the parameters, of their change, of decay's part),
            and `layer_parameters`, `layer_changes` those of layers.
        first_parameters: norms of layers at the first measurement, and `first_parameter_norm` of all.
        absent: for each variable, for how many updates it has had no gradient.
        bad_gradients: for how many updates the gradient has not been finite.
        silent: for each unit, for how many updates its gradient has been 0; `unit_layers` their layers.
        validation: the last (update, validation loss, median of the last 30 losses then).
    """

    def __init__(self, subject: Subject) -> None:
        layers = len(subject.layers)
        self.subject = subject
        self.updates = 0
        self.latest, self.arrived = Observation(update=-1), set[str]()
        self.losses, self.loss_updates = Ring(LOSSES), Ring(LOSSES)
        self.start_loss = self.first_loss = self.early_loss = self.best_loss = math.nan
        self.order, self.best_epoch_loss = BatchOrder(), math.nan
        self.gradients, self.layer_gradients = Ring(WINDOW), Ring(WINDOW, layers)
        self.peak_gradient, self._peak = 0.0, 0.0
        self.rates, self.peak_rate = Ring(WINDOW), 0.0
        self.clipping = Ring(WINDOW, 3)
        self.measured = Ring(WINDOW + 1, 4)
        self.layer_parameters, self.layer_changes = Ring(WINDOW + 1, layers), Ring(WINDOW + 1, layers)
        self.first_parameters, self.first_parameter_norm = np.full(layers, np.nan), math.nan
        self.absent = np.zeros(len(subject.paths), np.int64)
        self.bad_gradients = self.bad_losses = 0
        self.silent, self.half_precision = np.zeros(0, np.int64), Ring(PROBES)
        self.unit_layers = np.zeros(0, np.int64)
        self.validation = Ring(VALIDATIONS, 3)
        self.parameter_change = math.nan
        self._dot = _Mean()
        self._square = _Mean()
        self._noise, self._signal = _Mean(), _Mean()

    def observe(self, x: Observation) -> None:
        """Take in the next update."""
        self.latest, self.updates, self.arrived = x, self.updates + 1, {"update"}
        self.order.push(x.loss, x.gradient_norm)
        self._observe_loss(x)
        self._observe_gradient(x)
        if math.isfinite(x.learning_rate):
            self.rates.push(x.learning_rate)
            self.peak_rate = max(self.peak_rate, x.learning_rate)
        if math.isfinite(x.parameter_norm) and math.isfinite(x.update_norm) and not x.skipped:
            self._observe_measurement(x)
        if x.probe is not None:
            self._observe_probe(x, x.probe)

    def begin_epoch(self) -> None:
        """The next update is the first of an epoch."""
        self.order.begin_epoch()
        self.best_epoch_loss = float(np.fmin(self.best_epoch_loss, median(self.order.epoch_losses())))

    def epoch_losses(self, n: int) -> np.ndarray:
        """The last n losses; where batches come in one order, those of a whole epoch if it is longer."""
        if self.order.epoch_updates > n and self.order.repeats():
            return self.order.epoch_losses()
        return self.losses.last(n)

    def validate(self, update: int, loss: float) -> None:
        """Take in a loss on other data."""
        self.arrived = {"validation"} if math.isfinite(loss) else set()
        if self.arrived:
            self.validation.push(np.array([update, loss, median(self.losses.last(30))]))

    def update_ratios(self, n: int) -> np.ndarray:
        """Change of each layer as a share of its norm, a row for each of the last n measurements; `nan` where the norm
        is nearly 0, and for layers without a matrix."""
        parameters, subject = self.layer_parameters.last(n), self.subject
        usable = subject.matrices & (parameters > 1e-12 * np.sqrt(subject.sizes))
        return np.asarray(self.layer_changes.last(n) / np.where(usable, parameters, np.nan))

    def silent_share(self, updates: int) -> np.ndarray:
        """Share of each layer's units that have been silent for so many updates; 0 for layers with fewer than 4."""
        layers = len(self.subject.layers)
        units = np.bincount(self.unit_layers, minlength=layers)
        silent = np.bincount(self.unit_layers[self.silent >= updates], minlength=layers)
        return np.where(units >= 4, silent / np.maximum(units, 1), 0.0)

    @property
    def noise(self) -> float:
        """Variance of the gradient as a multiple of its squared mean; see `OptimizationMetrics.grad_variance`."""
        if self._noise.count >= 20:
            return self._noise.value / self._signal.value if self._signal.value > 0 else math.inf
        if self._dot.count >= 20:
            return self._square.value / self._dot.value - 1 if self._dot.value > 0 else math.inf
        return math.nan

    def _observe_loss(self, x: Observation) -> None:
        self.bad_losses = self.bad_losses + 1 if math.isinf(x.loss) else 0
        if not math.isfinite(x.loss):
            return
        if not len(self.losses):
            self.start_loss = x.loss
        self.arrived.add("loss")
        self.losses.push(x.loss)
        self.loss_updates.push(x.update)
        if self.losses.count <= START:
            self.first_loss = median(self.losses.last())
        if self.losses.count <= EARLY:
            self.early_loss = median(self.losses.last())
        if self.losses.count % 4 == 0 and self.losses.count >= 8:
            recent = median(self.losses.last(8))
            self.best_loss = recent if math.isnan(self.best_loss) else min(self.best_loss, recent)

    def _observe_gradient(self, x: Observation) -> None:
        self.bad_gradients = self.bad_gradients + 1 if math.isinf(x.gradient_norm) else 0
        if len(x.gradient_norms):
            missing = np.isnan(x.gradient_norms)
            self.absent = np.where(missing, self.absent + 1, 0)
        if not math.isfinite(x.gradient_norm):
            return
        self.peak_gradient, self._peak = self._peak, max(self._peak, x.gradient_norm)
        self.gradients.push(x.gradient_norm)
        self.clipping.push(np.array([x.gradient_norm, x.clip_threshold, float(x.clipped)]))
        if len(x.gradient_norms):
            self.layer_gradients.push(self.subject.by_layer(x.gradient_norms))
        if x.micro_batches > 1 and math.isfinite(x.micro_square):
            k, whole, part = x.micro_batches, x.gradient_norm**2, x.micro_square
            self._signal.add((k * whole - part) / (k - 1))
            self._noise.add((part - whole) / (1 - 1 / k) / k)

    def _observe_measurement(self, x: Observation) -> None:
        self.arrived.add("measurement")
        self.measured.push(np.array([x.update, x.parameter_norm, x.update_norm, x.decay_norm]))
        if len(x.parameter_norms):
            self.layer_parameters.push(self.subject.by_layer(x.parameter_norms))
            self.layer_changes.push(self.subject.by_layer(x.update_norms))
        if math.isnan(self.first_parameter_norm):
            self.first_parameter_norm = x.parameter_norm
            if len(x.parameter_norms):
                self.first_parameters = self.layer_parameters.last(1)[0].copy()

    def _observe_probe(self, x: Observation, probe: Probe) -> None:
        self.arrived.add("probe")
        self.silent, self.unit_layers = probe.silent_updates, probe.unit_layers
        if len(probe.small_entries):
            small = np.nansum(probe.small_entries)
            share = np.nansum(probe.half_precision * probe.small_entries) / small if small >= 16 else 0.0
            zero = self.subject.matrices[self.subject.layer_of] & (probe.zero_fraction > 0.3)
            self.half_precision.push(float(share == 1.0 and bool(zero.any())))
        if math.isfinite(probe.gradient_dot) and math.isfinite(probe.gradient_square):
            self._dot.add(probe.gradient_dot)
            self._square.add(probe.gradient_square)


class _Mean:
    """Exponentially weighted mean, without the weight that its start at 0 would have."""

    def __init__(self) -> None:
        self.count, self._sum, self._weight = 0, 0.0, 0.0

    def add(self, x: float) -> None:
        self.count += 1
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * x
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)

    @property
    def value(self) -> float:
        return self._sum / self._weight

"""The whole update in float64 NumPy: one variable at a time, in the order of the text, nothing clever."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray
Gradients = Mapping[str, Array | None]


class Reference:
    """What `capibara_keras.Optimizer` has to compute; the options have the same names and meanings.

    Args:
        weights: initial values by path.
        learning_rate: the rate, and with a `schedule` its peak.
        schedule: index of the update (the first is 0) -> rate.
        constraints: path -> function of the new value.

    Attributes:
        w: the weights. average: their moving averages. updates: how many there were. counters: as the optimizer's.
        learning_rate_used, gradient_norm, parameter_norm, update_norm, weight_decay_loss, clipped, skipped:
            of the last update, as in `StepRecord`.

    >>> reference = Reference({"w": np.array([1.0])}, algorithm="sgd", learning_rate=0.1)
    >>> updated = reference.apply({"w": np.array([2.0])})
    >>> print(updated, reference.w["w"])
    True [0.8]
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        *,
        algorithm: str = "adam",
        learning_rate: float = 0.001,
        schedule: Callable[[int], float] | None = None,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        correct_bias: bool = True,
        momentum: float = 0.0,
        nesterov: bool = False,
        dampening: float = 0.0,
        weight_decay: float | None = None,
        weight_decay_mode: str = "decoupled",
        weight_decay_exclude: tuple[str, ...] = (),
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        normalize_gradients: bool = True,
        loss_divided: bool = False,
        defer_clip_until_accumulation: bool = True,
        nonfinite: str = "skip",
        differential_learning_rates: Mapping[str, float] | None = None,
        maximize: bool = False,
        constraints: Mapping[str, Callable[[Array], Array]] | None = None,
    ) -> None:
        self.w = {path: np.array(value, np.float64) for path, value in weights.items()}
        self.algorithm, self.learning_rate, self.schedule = algorithm, learning_rate, schedule
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.amsgrad, self.correct_bias = amsgrad, correct_bias
        self.momentum, self.nesterov, self.dampening = momentum, nesterov, dampening
        self.weight_decay = weight_decay or 0.0
        self.weight_decay_mode = weight_decay_mode
        self.decayed = {path for path in weights if not any(re.search(p, path) for p in weight_decay_exclude)}
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.use_ema, self.ema_momentum = use_ema, ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale = loss_scale_factor or 1.0
        self.accumulation_steps = gradient_accumulation_steps or 1
        self.normalize_gradients, self.loss_divided = normalize_gradients, loss_divided
        self.defer_clip, self.nonfinite = defer_clip_until_accumulation, nonfinite
        self.multipliers = differential_learning_rates or {}
        self.maximize, self.constraints = maximize, constraints or {}

        self.updates = self.micro_step = 0
        self.sums: dict[str, Array] = {}
        self.total_weight = 0.0
        self.counters = {"micro_steps": 0, "dropped": 0, "skipped": 0, "clipped": 0}
        self.m, self.v, self.v_max, self.b = [self._zeros() for _ in range(4)]
        self.average = self._zeros()

    def _zeros(self) -> dict[str, Array]:
        return {path: np.zeros_like(value) for path, value in self.w.items()}

    def apply(self, gradients: Gradients, step_number: int | None = None, weight: float = 1.0) -> bool:
        """Add a micro-batch to the window; on the last one, update. Returns whether that was the last."""
        self.counters["micro_steps"] += 1
        g = {path: self._true_scale(x) for path, x in gradients.items() if x is not None}
        if self.nonfinite == "drop_micro_batch" and not finite(g):
            self.counters["dropped"] += 1
            return False
        if not self.defer_clip and finite(g):
            g = self._clip_and_count(g)
        for path, x in g.items():
            self.sums[path] = self.sums.get(path, 0.0) + weight * x
        self.total_weight += weight
        self.micro_step += 1
        if self.micro_step < self.accumulation_steps:
            return False
        total = {path: x / self._divisor() for path, x in self.sums.items()}
        self.sums, self.total_weight, self.micro_step = {}, 0.0, 0
        self._update(total, self.updates if step_number is None else step_number)
        return True

    def _true_scale(self, g: Array) -> Array:
        """The gradient of the loss itself, from that of the loss as it was scaled."""
        g = np.asarray(g, np.float64) / self.loss_scale
        return g * self.accumulation_steps if self.loss_divided else g

    def _divisor(self) -> float:
        if self.normalize_gradients:
            return self.total_weight
        return self.accumulation_steps if self.loss_divided else 1.0

    def _update(self, g: dict[str, Array], schedule_step: int) -> None:
        self.learning_rate_used = self.schedule(schedule_step) if self.schedule else self.learning_rate
        if self.maximize:
            g = {path: -x for path, x in g.items()}
        self.gradient_norm = norm(*g.values())
        self.skipped, self.clipped = not finite(g), False
        if self.skipped:
            self.counters["skipped"] += 1
            return
        before = dict(self.w)
        self.parameter_norm = norm(*before.values())
        squares = sum(np.sum(before[path] ** 2) for path in self.decayed)
        self.weight_decay_loss = 0.5 * self.weight_decay * squares

        for path, x in (self._clip_and_count(g) if self.defer_clip else g).items():
            w = self.w[path]
            rate = self.learning_rate_used * self.multipliers.get(path, 1.0)
            wd = self.weight_decay if path in self.decayed else 0.0
            if self.weight_decay_mode == "l2":
                x = x + wd * w
            u = self._sgd(path, x) if self.algorithm == "sgd" else self._adam(path, x)
            new = w - rate * u
            if self.weight_decay_mode == "decoupled":
                new = new - rate * wd * w
            if self.weight_decay_mode == "independent":
                new = new - rate / self.learning_rate * wd * w
            self.w[path] = self.constraints[path](new) if path in self.constraints else new
        self.update_norm = norm(*(self.w[path] - before[path] for path in self.w))

        self.updates += 1
        if self.use_ema:
            self._average()

    def _clip_and_count(self, g: dict[str, Array]) -> dict[str, Array]:
        result = self._clip(g)
        clipped = any(not np.array_equal(result[path], g[path]) for path in g)
        self.counters["clipped"] += clipped
        self.clipped = clipped and self.defer_clip
        return result

    def _clip(self, g: dict[str, Array]) -> dict[str, Array]:
        if self.clipvalue is not None:
            return {path: np.clip(x, -self.clipvalue, self.clipvalue) for path, x in g.items()}
        if self.clipnorm is not None:
            return {path: x * self.clipnorm / norm(x) if norm(x) > self.clipnorm else x for path, x in g.items()}
        if self.global_clipnorm is not None and norm(*g.values()) > self.global_clipnorm:
            return {path: x * self.global_clipnorm / norm(*g.values()) for path, x in g.items()}
        return g

    def _adam(self, path: str, g: Array) -> Array:
        t = self.updates + 1
        self.m[path] = self.beta_1 * self.m[path] + (1 - self.beta_1) * g
        self.v[path] = self.beta_2 * self.v[path] + (1 - self.beta_2) * g**2
        self.v_max[path] = np.maximum(self.v_max[path], self.v[path])
        m, v = self.m[path], self.v_max[path] if self.amsgrad else self.v[path]
        if self.correct_bias:
            m, v = m / (1 - self.beta_1**t), v / (1 - self.beta_2**t)
        return m / (np.sqrt(v) + self.epsilon)

    def _sgd(self, path: str, g: Array) -> Array:
        if self.momentum == 0:
            return g
        if self.updates == 0:
            self.b[path] = g
        else:
            self.b[path] = self.momentum * self.b[path] + (1 - self.dampening) * g
        return g + self.momentum * self.b[path] if self.nesterov else self.b[path]

    def _average(self) -> None:
        for path, w in self.w.items():
            if self.updates == 1:
                self.average[path] = w
            else:
                self.average[path] = self.ema_momentum * self.average[path] + (1 - self.ema_momentum) * w
        if self.ema_overwrite_frequency and self.updates % self.ema_overwrite_frequency == 0:
            self.w = dict(self.average)


def finite(g: Mapping[str, Array]) -> bool:
    """Whether no entry is NaN or infinite."""
    return all(bool(np.isfinite(x).all()) for x in g.values())


def norm(*arrays: Array) -> float:
    """The L2 norm over all entries of all arrays."""
    return math.sqrt(sum(float(np.sum(np.square(x))) for x in arrays))


def cosine_with_warmup(peak: float, warmup_steps: int, max_steps: int, floor: float) -> Callable[[int], float]:
    """Linear from 0 to `peak` over the warmup, then half a cosine to `floor` at `max_steps`."""

    def rate(t: int) -> float:
        if t < warmup_steps:
            return peak * t / warmup_steps
        s = min(1.0, (t - warmup_steps) / (max_steps - warmup_steps))
        return floor + (peak - floor) / 2 * (1 + math.cos(math.pi * s))

    return rate


def dense(indices: Array, rows: Array, shape: tuple[int, ...]) -> Array:
    """The array that a sparse gradient stands for: rows with equal indices add up."""
    result = np.zeros(shape, np.float64)
    np.add.at(result, indices, rows)
    return result

"""The base of all schedules: linear warmup, then a shape; and the few exact operations they share.

A step is the index t of the update about to be applied (the first is 0). Phases are computed from integer
differences of steps, because float32 cannot tell t from t + 1 beyond 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import backend
from capibara_keras.errors import integer
from capibara_keras.records import Record
from capibara_keras.schedules.arguments import LAST_STEP, check, unfit
from capibara_keras.types import Tensor

__all__ = ["FloorSchedule", "Preview", "Schedule", "WarmupSchedule"]


@dataclass(frozen=True, eq=False)
class Preview(Record):
    """A schedule in numbers, ready for plotting.

    Args:
        steps: update indices, int64, increasing.
        rates: the learning rate of each, float64.

    >>> from capibara_keras.schedules import LinearWithWarmup
    >>> LinearWithWarmup(1.0, total_steps=4).preview(4)["rates"].tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    steps: np.ndarray
    rates: np.ndarray


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate as a function of the update index. Subclasses are frozen dataclasses whose fields are
    the constructor's arguments.

    >>> from capibara_keras.schedules import LinearWithWarmup
    >>> LinearWithWarmup(1.0, total_steps=4).get_config()["total_steps"]
    4
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, check(field.name, value))

    @property
    def peak(self) -> float:
        """The largest rate that the schedule reaches."""
        raise NotImplementedError

    def preview(self, n: int, points: int = 200) -> Preview:
        """The rates of about `points` updates, evenly spread over 0, ..., n.

        Raises:
            ConfigError: if `n` or `points` is not a whole number of at least 1.
        """
        n, points = integer("n", n, 1, LAST_STEP), integer("points", points, 1)
        steps = np.unique(np.linspace(0, n, points).round().astype("int64"))
        return Preview(steps, ops.convert_to_numpy(self(steps)).astype("float64"))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, fit for JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def required(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        """The arguments that must be there, when `given` are."""
        return tuple(field.name for field in fields(cls) if field.default is MISSING)


class WarmupSchedule(Schedule):
    """Linear warmup from `warmup_init_lr` to the peak P over W updates (Goyal et al. 2017, section 2.2), then
    whatever `after_warmup` says.

        lr(t) = init + (P - init) t / W   for t <= W

    Hence exactly P at t = W, and from the start if W = 0.

    Rates are of dtype `keras.config.floatx()`, at least float32; steps are integers (a Python int, a NumPy
    array or a tensor of any shape) up to 2^31 - 1, later ones count as that.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Halving(WarmupSchedule):
    ...     peak_learning_rate: float
    ...     warmup_steps: int = 0
    ...     warmup_init_lr: float = 0.0
    ...
    ...     def after_warmup(self, step):
    ...         return 0.5 * self.peak_learning_rate
    >>> Halving(1.0, warmup_steps=4).preview(5).rates.tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0, 0.5]
    """

    peak_learning_rate: float
    warmup_steps: int
    warmup_init_lr: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("warmup_init_lr", "min_learning_rate"):
            if (rate := getattr(self, name, 0.0)) > self.peak_learning_rate:
                raise unfit(name, f"at most peak_learning_rate={self.peak_learning_rate!r}", rate)
        total = getattr(self, "total_steps", None)
        if total is not None and total <= self.warmup_steps:
            raise unfit("total_steps", f"more than warmup_steps={self.warmup_steps}", total)

    @property
    def peak(self) -> float:
        return self.peak_learning_rate

    def __call__(self, step: Tensor) -> Tensor:
        t, W = as_step(step), self.warmup_steps
        warmup = mix(self.warmup_init_lr, self.peak_learning_rate, self.rise(fraction(t, W)))
        return ops.where(t <= W, warmup, self.after_warmup(ops.maximum(t, W)))

    def rise(self, s: Tensor) -> Tensor:
        """The warmup's shape: from 0 at s = 0 to exactly 1 at s = 1."""
        return s

    def after_warmup(self, step: Tensor) -> Tensor:
        """The rate at int32 `step` >= `warmup_steps`."""
        raise NotImplementedError


class FloorSchedule(WarmupSchedule):
    """A warmup schedule that ends at step T = `total_steps`, and stays at `min_learning_rate` then.

    >>> from capibara_keras.schedules import LinearWithWarmup
    >>> LinearWithWarmup(1.0, total_steps=4, min_learning_rate=0.5).preview(6).rates.tolist()
    [1.0, 0.875, 0.75, 0.625, 0.5, 0.5, 0.5]
    """

    total_steps: int
    min_learning_rate: float

    def after_warmup(self, step: Tensor) -> Tensor:
        return ops.where(step >= self.total_steps, real(self.min_learning_rate), self.anneal(step))

    def anneal(self, step: Tensor) -> Tensor:
        """The rate at int32 `step` in [`warmup_steps`, `total_steps`); later values are not used."""
        raise NotImplementedError


def as_step(step: Any) -> Tensor:
    """`step` as int32, limited to the largest one."""
    if isinstance(step, (int, float, list, tuple, np.ndarray, np.generic)):
        step = np.minimum(np.asarray(step, "float64"), LAST_STEP).astype("int32")
    step = ops.convert_to_tensor(step)
    dtype = keras.backend.standardize_dtype(step.dtype)
    if dtype in ("int64", "uint32", "uint64"):
        step = ops.minimum(step, LAST_STEP)
    elif dtype.startswith(("float", "bfloat")):
        step = ops.minimum(step, LAST_STEP - 127)  # the largest float32 below 2^31
    return ops.cast(step, "int32")


def real(x: Any) -> Tensor:
    """`x` in the dtype of rates: float64 where Keras computes in it, else float32."""
    dtype = "float64" if keras.config.floatx() == "float64" else "float32"
    return ops.cast(x, dtype) if ops.is_tensor(x) else ops.convert_to_tensor(x, dtype)


def fraction(n: Tensor, d: Tensor | int) -> Tensor:
    """n / d limited to [0, 1], for integers; exactly 1 for n >= d (XLA may divide by multiplying with a
    rounded reciprocal), also where d = 0."""
    return ops.where(n >= d, real(1.0), ops.maximum(real(n) / real(ops.maximum(d, 1)), 0.0))


def passed(t: Tensor, starts: np.ndarray) -> Tensor:
    """How many of the `starts` (int32, increasing) are at or before t."""
    return ops.sum(ops.cast(ops.expand_dims(t, -1) >= starts, "int32"), -1)


def mix(a: Tensor | float, b: Tensor | float, s: Tensor) -> Tensor:
    """From a at s = 0 to b at s = 1, both exact, which a + s (b - a) is not."""
    return (1 - s) * a + s * b


def cosine(s: Tensor) -> Tensor:
    """(1 + cos(pi s)) / 2, as the square of the half angle's cosine: 1 at s = 0, 0 at s = 1."""
    return ops.square(backend.cos(0.5 * math.pi * s))

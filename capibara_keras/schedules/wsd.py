"""Warmup, stable, decay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import ops

from capibara_keras.schedules.arguments import unfit
from capibara_keras.schedules.base import FloorSchedule, cosine, fraction, mix
from capibara_keras.types import Tensor

__all__ = ["WSD"]

_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda s: 1 - s,
    "cosine": cosine,
    "1-sqrt": lambda s: 1 - ops.sqrt(s),
}


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class WSD(FloorSchedule):
    """Warmup-stable-decay (Hu et al. 2024, section 4.2; decay shapes of Hägele et al. 2024, section 3.2).

        lr(t) = P                      for W <= t <= T - D
        lr(t) = m + (P - m) shape(s)   for T - D <= t < T, with s = (t - (T - D))/D,   m for t >= T
        shape(s) = 1 - s, (1 + cos(pi s))/2 or 1 - sqrt(s)

    Args:
        peak_learning_rate: P.
        total_steps: T, in updates, warmup included.
        decay_steps: D, in updates, the last ones; 10 to 20 % of T is usual.
        warmup_steps: W, in updates.
        min_learning_rate: floor m, at most P.
        warmup_init_lr: rate of the first update, if W > 0.
        decay_shape: "linear", "cosine" or "1-sqrt".

    Raises:
        ConfigError: if an argument is out of range or W + D > T.

    >>> from capibara_keras.schedules import WSD
    >>> WSD(1.0, total_steps=8, decay_steps=4, warmup_steps=2).preview(8).rates.tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    peak_learning_rate: float
    total_steps: int
    decay_steps: int
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    warmup_init_lr: float = 0.0
    decay_shape: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_steps + self.decay_steps > self.total_steps:
            bound = f"at most total_steps - warmup_steps = {self.total_steps} - {self.warmup_steps}"
            raise unfit("decay_steps", bound, self.decay_steps)

    def anneal(self, step: Tensor) -> Tensor:
        s = fraction(step - (self.total_steps - self.decay_steps), self.decay_steps)
        return mix(self.min_learning_rate, self.peak_learning_rate, _SHAPES[self.decay_shape](s))

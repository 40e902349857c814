"""The 1cycle policy."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from capibara_keras.errors import number
from capibara_keras.schedules.arguments import check
from capibara_keras.schedules.base import FloorSchedule, cosine, fraction, mix
from capibara_keras.types import Tensor

__all__ = ["OneCycle"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class OneCycle(FloorSchedule):
    """The 1cycle policy (Smith & Topin 2018), with the cosine legs of Howard & Gugger 2020 (fastai).

        lr(t) = P + (init - P)/2 (1 + cos(pi t/W))               for t <= W
        lr(t) = m + (P - m)/2 (1 + cos(pi (t - W)/(T - W)))      for W <= t < T,   m for t >= T

    Args:
        peak_learning_rate: P.
        total_steps: T, in updates, warmup included.
        warmup_steps: W, in updates; `None` for 30 % of T.
        min_learning_rate: floor m; `None` for P / 250000.
        warmup_init_lr: rate of the first update; `None` for P / 25.

    The defaults are torch's; there, however, the peak and the end come one update earlier.

    Raises:
        ConfigError: if an argument is out of range or T <= W.

    >>> from capibara_keras.schedules import OneCycle
    >>> schedule = OneCycle(1.0, total_steps=100)
    >>> [round(float(schedule(t)), 3) for t in (0, 15, 30, 65, 100)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """

    peak_learning_rate: float
    total_steps: int
    warmup_steps: int = None  # type: ignore[assignment]
    min_learning_rate: float = None  # type: ignore[assignment]
    warmup_init_lr: float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        peak = number("peak_learning_rate", self.peak_learning_rate, 0)
        total = check("total_steps", self.total_steps)
        defaults = {
            "warmup_steps": 3 * total // 10,
            "min_learning_rate": peak / 250_000,
            "warmup_init_lr": peak / 25,
        }
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()

    def rise(self, s: Tensor) -> Tensor:
        return 1 - cosine(s)

    def anneal(self, step: Tensor) -> Tensor:
        W, T = self.warmup_steps, self.total_steps
        return mix(self.min_learning_rate, self.peak_learning_rate, cosine(fraction(step - W, T - W)))

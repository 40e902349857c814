"""Exponential decay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from capibara_keras.schedules.arguments import unfit
from capibara_keras.schedules.base import WarmupSchedule, real
from capibara_keras.types import Tensor

__all__ = ["Exponential"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class Exponential(WarmupSchedule):
    """Exponential decay (Senior et al. 2013), given by its end or by its speed.

        lr(t) = P (m/P)^((t - W)/(T - W)),  m for t >= T      with `total_steps` and m > 0
        lr(t) = max(P decay_rate^((t - W)/decay_steps), m)    with `decay_rate`, `decay_steps`

    Args:
        peak_learning_rate: P.
        total_steps: T, in updates, warmup included.
        warmup_steps: W, in updates.
        min_learning_rate: floor m, at most P.
        warmup_init_lr: rate of the first update, if W > 0.
        decay_rate: factor in (0, 1] per `decay_steps` updates.
        decay_steps: in updates.

    Raises:
        ConfigError: if an argument is out of range, T <= W, or if it is not exactly one of the two forms.

    >>> from capibara_keras.schedules import Exponential
    >>> float(Exponential(1.0, total_steps=100, min_learning_rate=0.25)(50))
    0.5
    >>> float(Exponential(1.0, decay_rate=0.5, decay_steps=10)(30))
    0.125
    """

    peak_learning_rate: float
    total_steps: int | None = None
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    warmup_init_lr: float = 0.0
    decay_rate: float | None = None
    decay_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        by_end = self.total_steps is not None
        if by_end == (self.decay_rate is not None) or by_end == (self.decay_steps is not None):
            received = (self.total_steps, self.decay_rate, self.decay_steps)
            raise unfit(
                "total_steps, decay_rate, decay_steps",
                "either the first or both others",
                received,
            )
        if by_end and self.min_learning_rate == 0:
            raise unfit("min_learning_rate", "a number > 0 to reach at total_steps", self.min_learning_rate)

    @classmethod
    def required(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        by_speed = not given.keys().isdisjoint({"decay_rate", "decay_steps", "decay_ratio"})
        more = ("decay_rate", "decay_steps") if by_speed else ("total_steps", "min_learning_rate")
        return super().required(given) + more

    def after_warmup(self, step: Tensor) -> Tensor:
        W, T, P, m = self.warmup_steps, self.total_steps, self.peak_learning_rate, self.min_learning_rate
        if T is None:
            return ops.maximum(_decayed(P, step - W, self.decay_rate or 1.0, self.decay_steps or 1), m)
        return ops.where(step >= T, real(m), _decayed(P, step - W, m / P, T - W))


def _decayed(rate: float, steps: Tensor, factor: float, per: int) -> Tensor:
    return rate * ops.exp(math.log(factor) * (real(steps) / real(per)))

"""Inverse square root decay."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import ops

from capibara_keras.schedules.base import WarmupSchedule, real
from capibara_keras.types import Tensor

__all__ = ["InverseSqrt"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class InverseSqrt(WarmupSchedule):
    """Inverse square root decay (Vaswani et al. 2017, Equation 3, written with its peak).

        lr(t) = P / sqrt(1 + (t - W)/tau),   with tau = W: P sqrt(W/t)

    Needs no total: training can go on for as long as it helps.

    Args:
        peak_learning_rate: P.
        warmup_steps: W, in updates.
        warmup_init_lr: rate of the first update, if W > 0.
        timescale: tau, in updates; `None` for W, or 10000 if W = 0.

    Raises:
        ConfigError: if an argument is out of range.

    >>> from capibara_keras.schedules import InverseSqrt
    >>> float(InverseSqrt(1.0, warmup_steps=100)(400))
    0.5
    """

    peak_learning_rate: float
    warmup_steps: int = 0
    warmup_init_lr: float = 0.0
    timescale: int | None = None

    def after_warmup(self, step: Tensor) -> Tensor:
        tau = self.timescale or self.warmup_steps or 10_000
        return self.peak_learning_rate / ops.sqrt(1 + real(step - self.warmup_steps) / real(tau))

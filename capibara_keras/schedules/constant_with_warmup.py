"""A constant rate."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from capibara_keras.schedules.base import WarmupSchedule, real
from capibara_keras.types import Tensor

__all__ = ["ConstantWithWarmup"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class ConstantWithWarmup(WarmupSchedule):
    """Linear warmup (Goyal et al. 2017, section 2.2), then a constant rate.

        lr(t) = P   for t >= W

    Args:
        peak_learning_rate: P.
        warmup_steps: W, in updates.
        warmup_init_lr: rate of the first update, if W > 0.

    Raises:
        ConfigError: if an argument is out of range.

    >>> from capibara_keras.schedules import ConstantWithWarmup
    >>> ConstantWithWarmup(1.0, warmup_steps=2).preview(4).rates.tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0]
    """

    peak_learning_rate: float
    warmup_steps: int = 0
    warmup_init_lr: float = 0.0

    def after_warmup(self, step: Tensor) -> Tensor:
        return real(self.peak_learning_rate)

"""Linear decay."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from capibara_keras.schedules.base import FloorSchedule, fraction, mix
from capibara_keras.types import Tensor

__all__ = ["LinearWithWarmup"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class LinearWithWarmup(FloorSchedule):
    """Linear warmup and linear decay (Devlin et al. 2019, appendix A.2).

        lr(t) = P + (m - P) (t - W)/(T - W),   m for t >= T

    Args:
        peak_learning_rate: P.
        total_steps: T, in updates, warmup included.
        warmup_steps: W, in updates.
        min_learning_rate: floor m, at most P.
        warmup_init_lr: rate of the first update, if W > 0.

    Raises:
        ConfigError: if an argument is out of range or T <= W.

    >>> from capibara_keras.schedules import LinearWithWarmup
    >>> float(LinearWithWarmup(1.0, total_steps=100, warmup_steps=20)(60))
    0.5
    """

    peak_learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    warmup_init_lr: float = 0.0

    def anneal(self, step: Tensor) -> Tensor:
        W, T = self.warmup_steps, self.total_steps
        return mix(self.peak_learning_rate, self.min_learning_rate, fraction(step - W, T - W))

"""Polynomial decay."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import ops

from capibara_keras.schedules.base import FloorSchedule, fraction, mix
from capibara_keras.types import Tensor

__all__ = ["Polynomial"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class Polynomial(FloorSchedule):
    """Polynomial decay, the "poly" policy of Chen et al. 2017 (DeepLab) with a floor and warmup.

        lr(t) = m + (P - m) ((T - t)/(T - W))^power,   m for t >= T

    Args:
        peak_learning_rate: P.
        total_steps: T, in updates, warmup included.
        warmup_steps: W, in updates.
        min_learning_rate: floor m, at most P.
        warmup_init_lr: rate of the first update, if W > 0.
        power: above 0; 1 is linear, 0.9 the paper's.

    Raises:
        ConfigError: if an argument is out of range or T <= W.

    >>> from capibara_keras.schedules import Polynomial
    >>> float(Polynomial(1.0, total_steps=100, power=2.0)(50))
    0.25
    """

    peak_learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    warmup_init_lr: float = 0.0
    power: float = 1.0

    def anneal(self, step: Tensor) -> Tensor:
        W, T, p = self.warmup_steps, self.total_steps, self.power
        s, r = fraction(step - W, T - W), fraction(T - step, T - W)
        # r^p multiplies the rounding error of r by p, which shows where r is near 1; there s is known better.
        weight = ops.where(s < 0.5, ops.exp(p * ops.log1p(-ops.minimum(s, 0.5))), r**p)
        return mix(self.min_learning_rate, self.peak_learning_rate, weight)

"""Triangular cycles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
from keras import ops

from capibara_keras.schedules.base import WarmupSchedule, fraction, mix, real
from capibara_keras.types import Tensor

__all__ = ["Cyclic"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class Cyclic(WarmupSchedule):
    """Cyclical rates, the triangular policies (Smith 2017, section 3).

        lr(t) = m + (P - m) decay^k |1 - 2 ((t - W) mod C)/C|,   k = round((t - W)/C)

    After warmup the rate falls from P to m in C // 2 updates, and rises to the next peak in the rest of C.
    The paper's policies begin with a rise from m: `warmup_steps=C // 2, warmup_init_lr=m`.

    Args:
        peak_learning_rate: P.
        cycle_steps: C, in updates, at least 2.
        warmup_steps: W, in updates.
        min_learning_rate: m, at most P.
        warmup_init_lr: rate of the first update, if W > 0.
        cycle_decay: factor on P - m per cycle: 1 is the paper's "triangular", 0.5 its "triangular2".

    Raises:
        ConfigError: if an argument is out of range.

    >>> from capibara_keras.schedules import Cyclic
    >>> Cyclic(1.0, cycle_steps=4, cycle_decay=0.5).preview(8).rates.tolist()
    [1.0, 0.5, 0.0, 0.25, 0.5, 0.25, 0.0, 0.125, 0.25]
    """

    peak_learning_rate: float
    cycle_steps: int
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    warmup_init_lr: float = 0.0
    cycle_decay: float = 1.0

    def after_warmup(self, step: Tensor) -> Tensor:
        C, u = self.cycle_steps, step - self.warmup_steps
        trough = C // 2
        k, v = u // C, u % C
        rising = v >= trough
        height = ops.where(rising, fraction(v - trough, C - trough), fraction(trough - v, trough))
        amplitude = ops.exp(math.log(self.cycle_decay) * real(k + ops.cast(rising, "int32")))
        return mix(self.min_learning_rate, self.peak_learning_rate, amplitude * height)

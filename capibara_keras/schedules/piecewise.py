"""A rate in steps."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from capibara_keras.schedules.arguments import unfit
from capibara_keras.schedules.base import WarmupSchedule, passed, real
from capibara_keras.types import Tensor

__all__ = ["Piecewise"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class Piecewise(WarmupSchedule):
    """Piecewise constant (He et al. 2016, section 4.2: a tenth at 32000, a hundredth at 48000 updates).

        lr(t) = P               for W <= t < boundaries[0]
        lr(t) = P factors[k]    for boundaries[k] <= t < boundaries[k + 1]

    The new rate holds at the boundary itself, as in torch and optax; in Keras, one update later.

    Args:
        peak_learning_rate: P.
        boundaries: increasing update indices, all above W.
        factors: one per boundary, each relative to P (not to the one before).
        warmup_steps: W, in updates.
        warmup_init_lr: rate of the first update, if W > 0.

    Raises:
        ConfigError: if an argument is out of range or the lengths differ.

    >>> from capibara_keras.schedules import Piecewise
    >>> Piecewise(1.0, boundaries=[2, 4], factors=[0.5, 0.25]).preview(5).rates.tolist()
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    """

    peak_learning_rate: float
    boundaries: tuple[int, ...]
    factors: tuple[float, ...]
    warmup_steps: int = 0
    warmup_init_lr: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.factors) != len(self.boundaries):
            raise unfit("factors", f"one for each of boundaries={self.boundaries!r}", self.factors)
        if self.boundaries and self.boundaries[0] <= self.warmup_steps:
            raise unfit("boundaries", f"more than warmup_steps={self.warmup_steps}", self.boundaries)

    @property
    def peak(self) -> float:
        return self.peak_learning_rate * max((1.0, *self.factors))

    def after_warmup(self, step: Tensor) -> Tensor:
        rates = self.peak_learning_rate * np.array([1.0, *self.factors])
        return ops.take(real(rates), passed(step, np.array(self.boundaries, "int32")))

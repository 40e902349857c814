"""A warmup that lies over the beginning of a schedule, instead of going before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from capibara_keras import errors
from capibara_keras.migration.inner import inner_schedule, rates_at
from capibara_keras.rate import peak_of
from capibara_keras.schedules import WarmupSchedule
from capibara_keras.schedules.arguments import unfit
from capibara_keras.types import Tensor

__all__ = ["OverlaidWarmup"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class OverlaidWarmup(WarmupSchedule):
    """A linear warmup over the beginning of a schedule, as in TensorFlow's model garden: the schedule does not wait for
    it.

        lr(t) = init + (P - init) t / W   for t <= W, with P = schedule(W - offset)
        lr(t) = schedule(t - offset)      then

    Args:
        schedule: of Keras or of this package.
        warmup_steps: W, in updates.
        warmup_init_lr: rate of the first update, if W > 0.
        offset: updates by which the schedule is late.

    Raises:
        ConfigError: not a schedule, or numbers that are not those of a warmup.

    >>> import keras
    >>> schedule = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=8, end_learning_rate=0.0)
    >>> OverlaidWarmup(schedule, warmup_steps=2).preview(4).rates.tolist()
    [0.0, 0.375, 0.75, 0.625, 0.5]
    """

    schedule: Any
    warmup_steps: int = 0
    warmup_init_lr: float = 0.0
    offset: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, keras.optimizers.schedules.LearningRateSchedule):
            raise unfit("schedule", "a keras.optimizers.schedules.LearningRateSchedule", self.schedule)
        object.__setattr__(self, "warmup_steps", errors.integer("warmup_steps", self.warmup_steps, 0))
        object.__setattr__(self, "warmup_init_lr", errors.number("warmup_init_lr", self.warmup_init_lr, 0))
        object.__setattr__(self, "offset", errors.integer("offset", self.offset))

    @property
    def peak_learning_rate(self) -> float:  # type: ignore[override]
        """Where the warmup ends."""
        return float(ops.convert_to_numpy(self.after_warmup(ops.convert_to_tensor(self.warmup_steps, "int32"))))

    @property
    def peak(self) -> float:
        """That of the schedule, or of the warmup where it is higher."""
        return max(peak_of(self.schedule), self.warmup_init_lr)

    def after_warmup(self, step: Tensor) -> Tensor:
        return rates_at(self.schedule, step - self.offset)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"schedule": keras.optimizers.schedules.serialize(self.schedule)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> OverlaidWarmup:
        """The schedule that `get_config` describes."""
        return cls(**(dict(config) | {"schedule": inner_schedule(config)}))

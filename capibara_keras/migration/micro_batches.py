"""A schedule that counts micro-batches, read by an optimizer that counts updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from capibara_keras.errors import integer
from capibara_keras.migration.inner import inner_schedule, rates_at
from capibara_keras.rate import peak_of
from capibara_keras.schedules import Schedule
from capibara_keras.schedules.arguments import LAST_STEP, unfit
from capibara_keras.schedules.base import as_step
from capibara_keras.types import Tensor

__all__ = ["MicroBatchSchedule"]

_Base = keras.optimizers.schedules.LearningRateSchedule


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class MicroBatchSchedule(Schedule):
    """Keras' schedules count micro-batches, this package's updates. This one gives each update the rate that Keras
    would: that of the last micro-batch of its window.

        lr(t) = schedule(steps t + steps - 1)

    Args:
        schedule: one that counts micro-batches.
        steps: micro-batches per update.

    Raises:
        ConfigError: not a schedule, or fewer than 1 step.

    >>> import keras
    >>> keras_schedule = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=8, end_learning_rate=0.0)
    >>> MicroBatchSchedule(keras_schedule, steps=4).preview(2).rates.tolist()
    [0.625, 0.125, 0.0]
    """

    schedule: Any
    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.schedule, _Base):
            raise unfit("schedule", "a keras.optimizers.schedules.LearningRateSchedule", self.schedule)
        object.__setattr__(self, "steps", integer("steps", self.steps, 1))

    @property
    def peak(self) -> float:
        """That of the schedule inside."""
        return peak_of(self.schedule)

    def __call__(self, step: Tensor) -> Tensor:
        t = ops.minimum(as_step(step), LAST_STEP // self.steps - 1)
        return rates_at(self.schedule, t * self.steps + self.steps - 1)

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "steps": self.steps}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MicroBatchSchedule:
        """The schedule that `get_config` describes."""
        return cls(inner_schedule(config), config["steps"])

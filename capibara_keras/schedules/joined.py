"""Schedules one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from capibara_keras.schedules.arguments import LAST_STEP, unfit
from capibara_keras.schedules.base import Schedule, as_step, real
from capibara_keras.types import Tensor

__all__ = ["Join", "join"]


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class Join(Schedule):
    """Schedules one after the other, each counting its updates from its own start (`optax.join_schedules`).

        lr(t) = schedules[k](t - boundaries[k - 1])   for boundaries[k - 1] <= t < boundaries[k]

    Args:
        schedules: Keras schedules, of this package or not.
        boundaries: increasing update indices, one fewer than schedules.

    Raises:
        ConfigError: if something in `schedules` is not a schedule, or the lengths do not fit.

    >>> from capibara_keras.schedules import ConstantWithWarmup, Join, LinearWithWarmup
    >>> schedule = Join([ConstantWithWarmup(1.0), LinearWithWarmup(1.0, total_steps=4)], boundaries=[2])
    >>> schedule.preview(6).rates.tolist()
    [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """

    schedules: tuple[LearningRateSchedule, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.schedules, Sequence) or not self.schedules:
            raise unfit("schedules", "a list of schedules", self.schedules)
        for schedule in self.schedules:
            if not isinstance(schedule, LearningRateSchedule):
                raise unfit("schedules", "keras.optimizers.schedules.LearningRateSchedule objects", schedule)
        if len(self.boundaries) != len(self.schedules) - 1:
            raise unfit("boundaries", f"one fewer than the {len(self.schedules)} schedules", self.boundaries)
        object.__setattr__(self, "schedules", tuple(self.schedules))

    @property
    def peak(self) -> float:
        """The largest peak of the parts; a part that does not know its own is sampled."""
        return max(_peak(schedule) for schedule in self.schedules)

    def __call__(self, step: Tensor) -> Tensor:
        t = as_step(step)
        rate = real(self.schedules[0](t))
        for start, schedule in zip(self.boundaries, self.schedules[1:], strict=True):
            rate = ops.where(t < start, rate, real(schedule(ops.maximum(t - start, 0))))
        return rate

    def get_config(self) -> dict[str, Any]:
        parts = [keras.optimizers.schedules.serialize(schedule) for schedule in self.schedules]
        return {"schedules": parts, "boundaries": list(self.boundaries)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Join:
        """The schedule that `get_config` describes."""
        parts = [
            keras.optimizers.schedules.deserialize(part) if isinstance(part, Mapping) else part
            for part in config["schedules"]
        ]
        return cls(tuple(parts), config["boundaries"])


def join(schedules: Sequence[LearningRateSchedule], boundaries: Sequence[int]) -> Join:
    """The `schedules` one after the other; each later one starts, with its step 0, at its boundary.

    Args:
        schedules: Keras schedules, of this package or not.
        boundaries: increasing update indices, one fewer than schedules.

    Raises:
        ConfigError: if something in `schedules` is not a schedule, or the lengths do not fit.

    >>> from capibara_keras.schedules import ConstantWithWarmup, join
    >>> join([ConstantWithWarmup(1.0), ConstantWithWarmup(0.5)], [3]).preview(4).rates.tolist()
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """
    return Join(tuple(schedules), tuple(boundaries))


def _peak(schedule: LearningRateSchedule) -> float:
    if isinstance(schedule, Schedule):
        return schedule.peak
    steps = np.unique(np.geomspace(1, LAST_STEP, 500).astype("int64")) - 1
    return max(float(schedule(int(step))) for step in steps)

"""Schedules of Keras inside of schedules of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from capibara_keras.schedules.base import real
from capibara_keras.types import Tensor

__all__ = ["inner_schedule", "rates_at"]


def inner_schedule(config: Mapping[str, Any]) -> Any:
    """The entry "schedule" of a schedule's `get_config`, as an object."""
    inner = config["schedule"]
    return keras.optimizers.schedules.deserialize(inner) if isinstance(inner, Mapping) else inner


def rates_at(schedule: Any, step: Tensor) -> Tensor:
    """The rate at a step, or at each of several: schedules of Keras may branch on it, and take one at a time."""
    step = ops.convert_to_tensor(step)
    if len(step.shape) == 0:
        return real(schedule(step))
    return ops.stack([real(schedule(step[i])) for i in range(step.shape[0])])

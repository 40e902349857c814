"""Where the learning rate comes from: a number, a schedule, or a schedule that waits for its steps."""

from __future__ import annotations

from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.config import OptimizerConfig
from capibara_keras.types import Scalar

__all__ = ["Pending", "peak_of", "rate_of"]


class Pending(keras.optimizers.schedules.LearningRateSchedule):
    """Stands for a schedule whose steps are not known yet; asking for the rate says what is missing.

    Args:
        configuration: has a schedule plan.
        total_steps: updates in all, if known.
    """

    def __init__(self, configuration: OptimizerConfig, total_steps: int | None) -> None:
        self.configuration, self.total_steps = configuration, total_steps

    def __call__(self, step: Scalar) -> Scalar:
        return resolved(self.configuration, self.total_steps)(step)

    def get_config(self) -> dict[str, Any]:
        return {"configuration": self.configuration, "total_steps": self.total_steps}


def rate_of(configuration: OptimizerConfig, total_steps: int | None = None) -> Any:
    """The rate that a configuration describes: a number, a schedule, or a `Pending` one."""
    plan = configuration.schedule
    if plan is None or not configuration.use_scheduler:
        return configuration.learning_rate
    if plan.missing(total_steps):
        return Pending(configuration, total_steps)
    return resolved(configuration, total_steps)


def resolved(configuration: OptimizerConfig, total_steps: int | None) -> Any:
    """The schedule, or an error that names what is missing."""
    plan, peak = configuration.schedule, configuration.learning_rate
    if plan is None or not isinstance(peak, float):
        raise errors.ConfigError(f"learning_rate: a scheduler needs its peak as a number, received {peak!r}")
    return plan.resolve(peak, total_steps)


def peak_of(schedule: Any) -> float:
    """The largest rate of a schedule: of this package's by their `peak`, of Keras' by their arguments.

    Raises:
        ConfigError: it cannot be told.
    """
    peak = getattr(schedule, "peak", None)
    if peak is None:
        is_schedule = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        options = schedule.get_config() if is_schedule else {}
        peak = options.get("warmup_target") or options.get("initial_learning_rate")
        peak = max(options["values"]) if "values" in options else peak
    if peak is None:
        raise errors.ConfigError(
            f"the peak of {schedule!r} is not known, and is needed here: give the schedule an attribute `peak`"
        )
    return float(peak)

"""The rates of a trial, as numbers in a variable: any schedule without a new trace."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras.config import OptimizerConfig
from capibara_keras.errors import ConfigError
from capibara_keras.rate import Pending, rate_of
from capibara_keras.schedules import Schedule
from capibara_keras.types import Variable

__all__ = ["RateTable", "check_rate", "rate_table"]


class RateTable(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of each update of a trial, in a variable: any schedule without a new trace."""

    peak = 1.0

    def __init__(self, rates: Variable) -> None:
        self.rates = rates

    def __call__(self, step: Any) -> Any:
        last = self.rates.shape[0] - 1
        return ops.take(self.rates, ops.minimum(ops.cast(step, "int32"), last))

    def get_config(self) -> dict[str, Any]:
        return {"rates": ops.convert_to_numpy(self.rates).tolist()}


def rate_table(settings: OptimizerConfig, steps: int) -> np.ndarray:
    """The rate of each update of a trial.

    Args:
        settings: with a number or a schedule as rate.
        steps: batches of the trial. There are as many entries, also where a window of several makes an update.

    Raises:
        ConfigError: the rate is neither, or a schedule that lacks something.

    >>> from capibara_keras import config
    >>> rate_table(config.parse({"learning_rate": 0.5, "scheduler_type": "linear_with_warmup"}), 4).tolist()
    [0.5, 0.375, 0.25, 0.125]
    """
    updates = max(1, steps // settings.accumulation_steps)
    rate = rate_of(settings, updates)
    check_rate(rate)
    table = np.zeros(steps)
    if isinstance(rate, Pending):
        rate(0)  # raises, and says what is missing
    if isinstance(rate, float):
        table[:] = rate
        return table
    at = np.arange(updates)
    own = isinstance(rate, Schedule)  # others may take one update at a time only
    table[:updates] = ops.convert_to_numpy(rate(at)) if own else [float(rate(int(i))) for i in at]
    table[updates:] = table[updates - 1]
    return table


def check_rate(rate: Any) -> None:
    """Raise for a rate that is no number and no schedule: what a function returns later cannot be put into a table."""
    if not isinstance(rate, (float, keras.optimizers.schedules.LearningRateSchedule)):
        raise ConfigError(f"learning_rate: the tuner needs a number or a schedule, received {rate!r}")

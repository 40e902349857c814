"""Schedules as they will be, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import errors
from capibara_keras.monitoring.schedule_plots import ScheduleCurve
from capibara_keras.rate import Pending, resolved
from capibara_keras.schedules import Join, Schedule
from capibara_keras.schedules.arguments import LAST_STEP

__all__ = ["plot_schedule", "schedule_curve"]

POINTS = 1000
"""Updates at which a schedule is read, at most."""


def plot_schedule(schedule: Any, steps: int, path: str | Path | None = None) -> Any:
    """The learning rate of the updates 0, …, `steps`, before training, with the warmup marked.

    Args:
        schedule: one of this package or of Keras; a number; or an optimizer of this package or of Keras, with what is
            configured there, also in Keras' `LossScaleOptimizer`. Nothing is changed.
        steps: updates; also the total of an optimizer's schedule that waits for it.
        path: of a file (.png, .svg or .pdf) to write the figure to.

    Returns:
        matplotlib's `Figure`; `schedule_curve` returns the numbers.

    Raises:
        ConfigError: what has no rate as a function of the update, `steps` below 1, or a file that cannot be written.

    >>> import capibara_keras as ck
    >>> optimizer = ck.Adam(1e-3, scheduler_type="cosine_with_warmup", warmup_ratio=0.1)
    >>> figure = ck.plot_schedule(optimizer, steps=1000)
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['learning rate', 'warmup: 100 updates', 'peak: 0.001', 'end: update 1000']
    """
    return schedule_curve(schedule, steps).plot(path)


def schedule_curve(schedule: Any, steps: int) -> ScheduleCurve:
    """The numbers of `plot_schedule`, with its arguments and errors.

    >>> import capibara_keras as ck
    >>> ck.schedule_curve(ck.SGD(0.5, scheduler_type="linear_with_warmup"), steps=4).rates.tolist()
    [0.5, 0.375, 0.25, 0.125, 0.0]
    """
    steps = errors.integer("steps", steps, 1, LAST_STEP)
    source, multiplier, name = _source(schedule, steps)
    at = np.unique(np.linspace(0, steps, min(steps + 1, POINTS)).round().astype("int64"))
    if isinstance(source, float):
        return ScheduleCurve(at, np.full(len(at), source), name=name)
    if isinstance(source, Schedule):
        rates = multiplier * ops.convert_to_numpy(source(at)).astype("float64")
    else:  # others may take one update at a time only
        rates = multiplier * np.array([float(ops.convert_to_numpy(source(ops.convert_to_tensor(t)))) for t in at])
    bad = np.flatnonzero(~np.isfinite(rates) | (rates < 0))
    if len(bad):
        raise errors.ConfigError(f"schedule: the rate of update {at[bad[0]]} is {rates[bad[0]]}")
    first = source.schedules[0] if isinstance(source, Join) else source
    warmup = getattr(first, "warmup_steps", 0) or 0
    end = getattr(source, "total_steps", None)
    return ScheduleCurve(at, rates, int(warmup), float("nan") if end is None else float(end), name)


def _source(schedule: Any, steps: int) -> tuple[Any, float, str]:
    """A schedule or a number, a factor, and a name."""
    if isinstance(schedule, keras.optimizers.Optimizer):
        return _of_optimizer(schedule, steps)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return schedule, 1.0, type(schedule).__name__
    if callable(schedule):
        raise errors.ConfigError(
            f"schedule: {schedule!r} is no schedule; what it returns later is not known before training"
        )
    return errors.number("schedule", schedule, 0), 1.0, "a constant"


def _of_optimizer(optimizer: keras.optimizers.Optimizer, steps: int) -> tuple[Any, float, str]:
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    source, multiplier = optimizer._learning_rate, getattr(optimizer, "_rate_multiplier", None)
    factor = 1.0 if multiplier is None else float(ops.convert_to_numpy(multiplier))
    if isinstance(source, keras.Variable):
        return float(ops.convert_to_numpy(source)), 1.0, optimizer.name
    if isinstance(source, Pending):
        source = resolved(source.configuration, steps)
    source, _, shape = _source(source, steps)
    return source, factor, f"{optimizer.name}: {shape}"

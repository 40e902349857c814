"""A learning rate that is set by hand for a while, whatever it follows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.core import Core
from capibara_keras.rate import Pending, peak_of
from capibara_keras.schedules import ConstantWithWarmup

__all__ = ["adjustable"]


@contextlib.contextmanager
def adjustable(model: Any, optimizer: Core) -> Iterator[Callable[[float], None]]:
    """A function that sets the rate; inside, no schedule changes it. What Python attributes change is put back here,
    and variables by whoever preserves them."""
    source = optimizer._learning_rate
    kept = {name: getattr(optimizer, name) for name in ("_attached", "_raised", "_weight", "_warned")}
    scheduled = not isinstance(source, keras.Variable)

    def follow(schedule: Any) -> None:
        optimizer.attach()  # so that the steps that were traced are replaced here, and nobody is told to do it
        optimizer._follow(schedule)  # no more than that: a schedule that waits for its total cannot be asked for a rate
        if optimizer.attach():
            model.make_train_function(force=True)

    def set_rate(rate: float) -> None:
        optimizer.learning_rate = rate

    try:
        if scheduled:
            follow(ConstantWithWarmup(_peak(source)))
            optimizer._multiplier().assign(1.0)
        yield set_rate
    finally:
        if scheduled:
            follow(source)
        optimizer._set(**kept)


def _peak(source: Any) -> float:
    """Of a schedule, for decay that is relative to it; 1 where it cannot be told, and then nothing asks."""
    if isinstance(source, Pending):
        source = source.configuration.learning_rate
    if isinstance(source, float):
        return source or 1.0
    try:
        return peak_of(source) or 1.0
    except errors.ConfigError:
        return 1.0

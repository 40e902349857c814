"""The learning rate: a variable, a schedule, or a schedule with a multiplier."""

from __future__ import annotations

import dataclasses
import weakref
from typing import Any

import keras
from keras import ops

from capibara_keras import config, errors
from capibara_keras.core.readable import Readable
from capibara_keras.rate import peak_of, rate_of
from capibara_keras.types import Scalar

__all__ = ["Rated"]

_Schedule = keras.optimizers.schedules.LearningRateSchedule


class Rated(Readable):
    """The rate of the next update, and where it comes from."""

    @property
    def learning_rate(self) -> Any:
        """The rate of the next update. Assigning a number makes it the current rate, also on top of a schedule:
        the schedule's shape goes on from there. Assigning a schedule replaces what was there."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._assign_rate(value)

    def _assign_rate(self, value: Any) -> None:
        value = config.rate(value)
        if callable(value):
            if self._rate_multiplier is not None:
                self._rate_multiplier.assign(1.0)
            if self._config.use_scheduler:  # else the next `attach` would go back to the schedule of the options
                self._adopt(dataclasses.replace(self._config, use_scheduler=False))
            self._follow(value)
        elif isinstance(self._learning_rate, keras.Variable):
            self._learning_rate.assign(value)
        elif value != float(self.learning_rate):
            shape = float(self._scheduled(self._iterations)) or peak_of(self._learning_rate)
            self._multiplier().assign(value / shape)

    def _get_current_learning_rate(self) -> Any:
        return self._rate_at(self._iterations)

    def _scheduled(self, step: Scalar) -> Scalar:
        """The schedule at a step, without multiplier."""
        source = self._learning_rate
        rate = source(step) if isinstance(source, _Schedule) else source()
        if rate is None:
            raise errors.ConfigError(f"learning_rate: expected a scalar of {type(source).__name__}, received None")
        rate = ops.convert_to_tensor(rate)
        known = getattr(rate.shape, "rank", 0) is not None  # while tracing, TensorFlow may not know it
        if known and tuple(rate.shape):
            raise errors.ConfigError(
                f"learning_rate: expected a scalar of {type(source).__name__}, received shape {tuple(rate.shape)}"
            )
        return rate

    def _rate_at(self, step: Any) -> Scalar:
        """The rate at an update, multiplier included."""
        if isinstance(self._learning_rate, keras.Variable):
            return self._learning_rate
        rate = self._scheduled(step)
        return rate if self._rate_multiplier is None else rate * ops.cast(self._rate_multiplier, rate.dtype)

    def _follow(self, schedule: Any) -> None:
        """Take the rate from a schedule (or a callable) from now on."""
        previous = self._learning_rate
        self._learning_rate = schedule
        if isinstance(previous, keras.Variable):
            self._untrack_variable(previous)
        if self.built:
            self._assemble()
        self._retrace()

    def attach(self, *, model: Any = None, total_steps: int | None = None) -> bool:
        """Tell the optimizer what it cannot see. The callbacks of this package do this in `fit`.

        Args:
            model: tells which layers the variables belong to.
            total_steps: updates of the whole training; completes a schedule that was configured without.

        Returns:
            Whether functions traced before now hold outdated options, and must be traced anew.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", learning_rate=1.0, scheduler_type="linear_with_warmup", warmup_ratio=0.1)
        >>> optimizer.attach(total_steps=100)
        False
        >>> optimizer.get_learning_rate(step=10)
        1.0
        """
        self._set(_attached=True)
        if model is not None:
            if self._plans and self._model() is not model:  # they were made without knowing its layers
                self._retrace()
            self._set(_model=weakref.ref(model))
        if total_steps is not None:
            self._set(_total_steps=errors.integer("total_steps", total_steps, 1))
            self._resolve_schedule()
        stale = self._stale
        self._set(_stale=False)
        return stale

    def _resolve_schedule(self) -> None:
        """Build the configured schedule from what is known."""
        if self._config.schedule is not None and self._config.use_scheduler:
            new = rate_of(self._config, self._total_steps)
            if not isinstance(self._learning_rate, _Schedule) or new.get_config() != self._learning_rate.get_config():
                self._follow(new)

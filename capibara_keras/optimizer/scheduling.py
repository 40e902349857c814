"""The schedule, from dictionaries of options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from capibara_keras.core import Core
from capibara_keras.schedules import SchedulePlan

__all__ = ["Scheduling"]


class Scheduling(Core):
    """Builds up the schedule of the learning rate."""

    def configure_scheduler(self, options: Mapping[str, Any]) -> None:
        """Add options to the schedule, or start one; later options win.

        Args:
            options: see `SchedulePlan`: `scheduler_type`, `warmup_steps`, `max_steps`, `min_learning_rate`,
                `cosine_restarts`, `restart_period`, `restart_decay`, …

        Raises:
            ConfigError: unknown or contradictory options.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", learning_rate=1.0)
        >>> optimizer.configure_scheduler({"warmup_steps": 10})
        >>> optimizer.get_learning_rate(step=5)
        0.5
        """
        current = self.configuration.schedule or SchedulePlan()
        self._schedule(current.merged(options))

    def configure_cosine_scheduler(self, options: Mapping[str, Any]) -> None:
        """Anneal along a cosine after a warmup: `CosineWithWarmup`. Replaces the schedule.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam")
        >>> optimizer.configure_cosine_scheduler({"warmup_steps": 2, "max_steps": 10, "max_learning_rate": 1.0})
        >>> round(optimizer.get_learning_rate(step=6), 6)
        0.5
        """
        self._schedule(SchedulePlan("cosine_with_warmup").merged(options))

    def configure_linear_scheduler(self, options: Mapping[str, Any]) -> None:
        """Decay linearly after a warmup: `LinearWithWarmup`. Replaces the schedule.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam")
        >>> optimizer.configure_linear_scheduler({"warmup_steps": 2, "training_steps": 10, "peak_lr": 1.0})
        >>> optimizer.get_learning_rate(step=6)
        0.5
        """
        self._schedule(SchedulePlan("linear_with_warmup").merged(options))

    def configure_polynomial_scheduler(self, options: Mapping[str, Any]) -> None:
        """Decay along a power after a warmup: `Polynomial`. Replaces the schedule.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", learning_rate=1.0)
        >>> optimizer.configure_polynomial_scheduler({"power": 2.0, "total_steps": 10})
        >>> optimizer.get_learning_rate(step=5)
        0.25
        """
        self._schedule(SchedulePlan("polynomial").merged(options))

    def get_learning_rate(self, step: int | None = None) -> float:
        """The learning rate at an update, as a Python float.

        Args:
            step: index of the update, from 0. Default: the next one.

        Raises:
            ConfigError: the schedule lacks an option, which the message names.

        >>> import capibara_keras as ck
        >>> ck.Optimizer("sgd", learning_rate=0.5).get_learning_rate()
        0.5
        """
        return float(ops.convert_to_numpy(self.learning_rate if step is None else self._rate_at(step)))

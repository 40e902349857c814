"""Averages in the place of a schedule."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import KerasOptions, Named, arguments

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeSGD"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class ScheduleFreeAdamW(Named):
    """Schedule-Free AdamW (Defazio et al. 2024): an average in the place of a schedule.

        u = g / (sqrt(v̂) + epsilon);  z ← z - rate u;  x ← (1 - c) x + c z;  gradients at (1 - beta_1) z + beta_1 x

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1: share of the average in the point where gradients are taken, in (0, 1).
        beta_2: decay rate of the second moment, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.ScheduleFreeAdamW(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("schedulefreeadamw", **arguments(ScheduleFreeAdamW, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class ScheduleFreeSGD(Named):
    """Schedule-Free SGD (Defazio et al. 2024): an average in the place of a schedule.

        z ← z - rate g;  x ← (1 - c) x + c z;  gradients at (1 - beta_1) z + beta_1 x

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1: share of the average in the point where gradients are taken, in (0, 1).
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.ScheduleFreeSGD(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.8
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        beta_1: float = 0.9,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("schedulefreesgd", **arguments(ScheduleFreeSGD, locals()))

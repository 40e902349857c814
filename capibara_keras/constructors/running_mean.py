"""One mean of squares, whole or factored."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import CommonOptions, Named, arguments

__all__ = ["Adafactor", "RMSprop"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class RMSprop(Named):
    """RMSprop (Tieleman & Hinton 2012), as `keras.optimizers.RMSprop` takes it.

        v ← rho v + (1 - rho) g²;  w ← w - rate g / (sqrt(v) + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        rho: decay rate of the mean of squares, in [0, 1).
        momentum: of a buffer of steps, in [0, 1); the rate is not in it (in Keras it is).
        epsilon: > 0, outside the square root (Keras has it inside).
        centered: divide by the standard deviation.
        weight_decay, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.RMSprop(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.68377
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__("rmsprop", **arguments(RMSprop, locals()))


class _AdafactorOptions(CommonOptions, total=False):
    scale_parameter: bool
    min_dim_size_to_factor: int


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adafactor(Named):
    """Adafactor (Shazeer & Stern 2018), as `keras.optimizers.Adafactor` takes it: row and column means for state.

        w ← w - rate max(epsilon_2, RMS(w)) g / sqrt(r c / mean(r)), the step's RMS limited by clip_threshold

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_2_decay: exponent of t in 1 - beta_2, < 0.
        epsilon_1: added to squares of gradients, > 0.
        epsilon_2: smallest scale of a variable, > 0.
        clip_threshold: > 0.
        relative_step: the rate is at most 1 / sqrt(t).
        weight_decay, …: as in `Adam`; also `scale_parameter` (True) and `min_dim_size_to_factor` (128; Keras factors
            all matrices).

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adafactor(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 0.001,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[_AdafactorOptions],
    ) -> None:
        super().__init__("adafactor", **arguments(Adafactor, locals()))

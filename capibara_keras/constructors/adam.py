"""Adam and AdamW."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import CommonOptions, Named, arguments

__all__ = ["Adam", "AdamW"]


class _AdamOptions(CommonOptions, total=False):
    correct_bias: bool


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adam(Named):
    """Adam (Kingma & Ba 2015), as `keras.optimizers.Adam` takes it.

        w ← w - rate m̂ / (sqrt(v̂) + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction (Keras has it before).
        amsgrad: use the largest second moment so far.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        clipnorm, clipvalue, global_clipnorm: limit of each variable's norm, of each entry, or of the norm over
            all; at most one.
        use_ema, ema_momentum, ema_overwrite_frequency: as in Keras, counted in updates.
        loss_scale_factor: as in Keras.
        gradient_accumulation_steps: micro-batches per update.
        name: as in Keras.
        **options: see `CommonOptions`; also `correct_bias=False`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adam(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 6))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
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
        **options: Unpack[_AdamOptions],
    ) -> None:
        super().__init__("adam", **arguments(Adam, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class AdamW(Named):
    """AdamW (Loshchilov & Hutter 2019), as `keras.optimizers.AdamW` takes it: Adam with decay by default.

        w ← w - rate (m̂ / (sqrt(v̂) + epsilon) + weight_decay w)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        weight_decay: default 0.004.
        beta_1, beta_2, epsilon, amsgrad, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.AdamW(learning_rate=0.1, weight_decay=0.5).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 6))
    0.85
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[_AdamOptions],
    ) -> None:
        super().__init__("adamw", **arguments(AdamW, locals()))

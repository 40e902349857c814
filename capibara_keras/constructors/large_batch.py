"""For large batches: signs, and steps in proportion to the weights."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import CommonOptions, KerasOptions, Named, arguments

__all__ = ["Lamb", "Lars", "Lion"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Lion(Named):
    """Lion (Chen et al. 2023), as `keras.optimizers.Lion` takes it: the sign of a momentum.

        w ← w - rate (sign(beta_1 m + (1 - beta_1) g) + weight_decay w);  m ← beta_2 m + (1 - beta_2) g

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: shares of the momentum in the step and in the buffer, in [0, 1).
        weight_decay, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Lion(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
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
        super().__init__("lion", **arguments(Lion, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Lamb(Named):
    """LAMB (You et al. 2020), as `keras.optimizers.Lamb` takes it: Adam's step at the length of the weights.

        r = m̂ / (sqrt(v̂) + epsilon) + weight_decay w;  w ← w - rate |w| / |r| r

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay: inside the ratio, as in the paper (Keras has it outside).
        clipnorm, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Lamb(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
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
        super().__init__("lamb", **arguments(Lamb, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Lars(Named):
    """LARS (You, Gitman & Ginsburg 2017): momentum with steps in proportion to the weights.

        r = g + weight_decay w;  b ← momentum b + trust_coefficient |w| / |r| r;  w ← w - rate b

    Args:
        learning_rate: number, schedule, or callable without arguments.
        momentum: in [0, 1).
        trust_coefficient: > 0.
        nesterov: look ahead.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Lars(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9999
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        trust_coefficient: float = 1e-3,
        nesterov: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("lars", **arguments(Lars, locals()))

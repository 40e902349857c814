"""Adam's relatives."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import CommonOptions, KerasOptions, Named, arguments

__all__ = ["Adamax", "Nadam", "NadamW", "RAdam"]


class _NadamOptions(CommonOptions, total=False):
    momentum_decay: float


@keras.saving.register_keras_serializable(package="capibara_keras")
class Nadam(Named):
    """Nadam (Dozat 2016), as `keras.optimizers.Nadam` takes it: Adam with Nesterov momentum.

        w ← w - rate (mu_{t+1} m_t / (1 - Π mu) + (1 - mu_t) g_t / (1 - Π mu)) / (sqrt(v̂) + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay, …: as in `Adam`; also `momentum_decay` (0.004; Keras has the equivalent of 1).

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Nadam(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.89435
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
        **options: Unpack[_NadamOptions],
    ) -> None:
        super().__init__("nadam", **arguments(Nadam, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class NadamW(Named):
    """Nesterov Adam with a constant momentum and decoupled decay (Dozat 2016, Dahl et al. 2023), as in optax.

        w ← w - rate ((beta_1 m_t / (1 - beta_1^(t+1)) + (1 - beta_1) g_t / (1 - beta_1^t)) / (sqrt(v̂) + epsilon)
                      + weight_decay w)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay: default 0.0001, as in optax.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.NadamW(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.85262
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = 1e-4,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("nadamw", **arguments(NadamW, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class RAdam(Named):
    """Rectified Adam (Liu et al. 2020): adapts as far as the second moment can be trusted.

        w ← w - rate r_t m̂ / (sqrt(v̂) + epsilon),  and without the divisor in the first updates

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1); beta_2 ≥ 0.6.
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.RAdam(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.8
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("radam", **arguments(RAdam, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adamax(Named):
    """Adamax (Kingma & Ba 2015), as `keras.optimizers.Adamax` takes it: Adam in the infinity norm.

        v ← max(beta_2 v, |g|);  w ← w - rate m̂ / (v + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates, in [0, 1).
        epsilon: > 0.
        weight_decay, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adamax(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
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
        super().__init__("adamax", **arguments(Adamax, locals()))

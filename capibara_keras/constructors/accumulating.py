"""Rates that fall with the gradients so far."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import CommonOptions, Named, arguments

__all__ = ["Adadelta", "Adagrad", "Ftrl"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adagrad(Named):
    """Adagrad (Duchi, Hazan & Singer 2011), as `keras.optimizers.Adagrad` takes it.

        a ← a + g²;  w ← w - rate g / (sqrt(a) + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        initial_accumulator_value: of a, ≥ 0.
        epsilon: > 0, outside the square root (Keras has it inside).
        weight_decay, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adagrad(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.90123
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
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
        super().__init__("adagrad", **arguments(Adagrad, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adadelta(Named):
    """Adadelta (Zeiler 2012), as `keras.optimizers.Adadelta` takes it. The paper's rate is 1.

        u = sqrt((d + epsilon) / (v + epsilon)) g;  w ← w - rate u;  v and d are running means of g² and u²

    Args:
        learning_rate: number, schedule, or callable without arguments.
        rho: decay rate of both means, in [0, 1).
        epsilon: > 0, inside the square roots.
        weight_decay, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adadelta(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.99986
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
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
        super().__init__("adadelta", **arguments(Adadelta, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Ftrl(Named):
    """FTRL-proximal (McMahan et al. 2013), as `keras.optimizers.Ftrl` takes it.

        w ← (sign(z) l1 - z) / (n^-power / rate + 2 l2 + beta / rate) where |z| > l1, else 0

    Args:
        learning_rate: number, schedule, or callable without arguments.
        learning_rate_power: ≤ 0.
        initial_accumulator_value: of n, ≥ 0.
        l1_regularization_strength, l2_regularization_strength: ≥ 0.
        l2_shrinkage_regularization_strength: ≥ 0, acts on the gradient.
        beta: of the paper, ≥ 0.
        weight_decay, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Ftrl(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.74505
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
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
        super().__init__("ftrl", **arguments(Ftrl, locals()))

"""Adam's successors with more state or another order."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import KerasOptions, Named, arguments

__all__ = ["Adan", "AdEMAMix", "Adopt", "Mars"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adopt(Named):
    """ADOPT (Taniguchi et al. 2024): Adam that divides by the past's second moment. The first update only looks.

        m ← beta_1 m + (1 - beta_1) clip(g / max(sqrt(v), epsilon), ±(t - 1)^(1/4));  w ← w - rate m;  then v as in Adam

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: smallest divisor, > 0.
        clip: False leaves out the clipping.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adopt(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    1.0
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.9999,
        epsilon: float = 1e-6,
        clip: bool = True,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("adopt", **arguments(Adopt, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adan(Named):
    """Adan (Xie et al. 2022): Adam with Nesterov momentum from differences of gradients.

        w ← (w - rate (m̂ + beta_2 d̂) / (sqrt(n̂) + epsilon)) / (1 + rate weight_decay)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2, beta_3: decay rates of gradient, difference and second moment, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adan(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.98,
        beta_2: float = 0.92,
        beta_3: float = 0.99,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("adan", **arguments(Adan, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class AdEMAMix(Named):
    """AdEMAMix (Pagliardini, Ablin & Grangier 2024): Adam with a second, very slow momentum.

        w ← w - rate (m̂ + alpha slow) / (sqrt(v̂) + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2, beta_3: decay rates of the fast, the second and the slow moment, in [0, 1).
        alpha: weight of the slow momentum, ≥ 0.
        epsilon: > 0, outside the square root, after bias correction.
        horizon: updates over which alpha and beta_3 rise; `None` for at once.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.AdEMAMix(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.89995
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        beta_3: float = 0.9999,
        alpha: float = 5.0,
        epsilon: float = 1e-8,
        horizon: int | None = None,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("ademamix", **arguments(AdEMAMix, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Mars(Named):
    """MARS (Yuan et al. 2024): AdamW on a gradient with reduced variance.

        c = g + gamma beta_1 / (1 - beta_1) (g - last g), at most of norm 1;  Adam with c in the place of g

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        gamma: share of the correction, ≥ 0.
        epsilon: > 0, outside the square root, after bias correction.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Mars(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.003,
        beta_1: float = 0.95,
        beta_2: float = 0.99,
        gamma: float = 0.025,
        epsilon: float = 1e-8,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("mars", **arguments(Mars, locals()))

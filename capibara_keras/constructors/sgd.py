"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import CommonOptions, Named, arguments

__all__ = ["SGD"]


class _SGDOptions(CommonOptions, total=False):
    dampening: float


@keras.saving.register_keras_serializable(package="capibara_keras")
class SGD(Named):
    """Gradient descent with momentum (Sutskever et al. 2013), as `keras.optimizers.SGD` takes it.

        b ← momentum b + (1 - dampening) g;  w ← w - rate b

    Args:
        learning_rate: number, schedule, or callable without arguments.
        momentum: in [0, 1); 0 keeps no state.
        nesterov: step along g + momentum b.
        weight_decay, …: as in `Adam`; also `dampening` in [0, 1].

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.SGD(learning_rate=0.25).apply([keras.ops.array([2.0])], [w])
    >>> float(w[0])
    0.5
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
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
        **options: Unpack[_SGDOptions],
    ) -> None:
        super().__init__("sgd", **arguments(SGD, locals()))

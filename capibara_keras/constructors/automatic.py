"""Without a rate to tune."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import KerasOptions, Named, arguments

__all__ = ["Prodigy"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Prodigy(Named):
    """Prodigy (Mishchenko & Defazio 2024): Adam that finds its rate.

        w ← w - rate d m / (sqrt(v) + d epsilon),  d an estimate of the distance to the solution

    Args:
        learning_rate: 1, with any schedule on it.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root.
        initial_distance: first d, > 0.
        distance_factor: what the estimate is multiplied by, > 0.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Prodigy(initial_distance=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 5))
    0.68377
    """

    def __init__(
        self,
        learning_rate: Any = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        initial_distance: float = 1e-6,
        distance_factor: float = 1.0,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("prodigy", **arguments(Prodigy, locals()))

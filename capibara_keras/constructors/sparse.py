"""For rows that are looked up now and then."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import KerasOptions, Named, arguments

__all__ = ["LazyAdam"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class LazyAdam(Named):
    """Adam for embeddings: rows whose gradient is 0 stay as they are, moments too.

        w_i ← w_i - rate m̂_i / (sqrt(v̂_i) + epsilon),  for rows with a gradient

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction.
        amsgrad, correct_bias: as in `Adam`.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([[1.0], [1.0]])
    >>> ck.LazyAdam(learning_rate=0.1, weight_decay=0.5).apply([keras.ops.array([[2.0], [0.0]])], [w])
    >>> [round(float(x), 5) for x in w[:, 0]]
    [0.85, 1.0]
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        correct_bias: bool = True,
        weight_decay: float | None = None,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("lazyadam", **arguments(LazyAdam, locals()))

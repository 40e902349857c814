"""Steps that treat kernels as matrices."""

from __future__ import annotations

from typing import Any, Unpack

import keras

from capibara_keras.constructors.common import KerasOptions, Named, arguments
from capibara_keras.rules.muon import HEADS

__all__ = ["Muon", "Soap"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Muon(Named):
    """Muon (Jordan et al. 2024): an orthogonalised momentum for matrices; AdamW for embeddings, heads and vectors.

        w ← w - rate (0.2 sqrt(max(in, out)) orthogonalised(momentum) + weight_decay w)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        momentum, nesterov: of matrices and kernels.
        newton_schulz_steps: iterations of the orthogonalisation.
        adjust_rate: "match_rms_adamw": AdamW's rate serves (Liu et al. 2025); or "original".
        split: equal parts of the last axis, each a matrix of its own: 3 for a fused query, key, value.
        adam_pattern: paths of variables that AdamW takes, as in `Group`.
        beta_1, beta_2, epsilon: of AdamW.
        weight_decay: default 0.1; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([[1.0, 0.0], [0.0, 1.0]])
    >>> ck.Muon(learning_rate=0.1, weight_decay=None).apply([keras.ops.array([[2.0, 0.0], [0.0, 1.0]])], [w])
    >>> bool(w[0, 0] < 1 and w[1, 1] < 1)
    True
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        momentum: float = 0.95,
        nesterov: bool = True,
        newton_schulz_steps: int = 5,
        adjust_rate: str = "match_rms_adamw",
        split: int = 1,
        adam_pattern: str = HEADS,
        beta_1: float = 0.9,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        weight_decay: float | None = 0.1,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("muon", **arguments(Muon, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class Soap(Named):
    """SOAP (Vyas et al. 2024): Adam in the eigenbases of the gradient's second moments by rows and columns.

        w ← w - rate (Q_L Adam(Q_L^T g Q_R) Q_R^T + weight_decay w)

    The first update only finds the bases.

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the mean, and of all second moments.
        epsilon: outside the square root.
        precondition_frequency: updates from one refresh of the bases to the next.
        max_precondition_dim: the longest side of a matrix that has a basis.
        weight_decay: default 0.01; decoupled unless `weight_decay_mode` says otherwise.
        **options: see `KerasOptions` and `CommonOptions`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w, optimizer = keras.Variable([[1.0, 0.0], [0.0, 1.0]]), ck.Soap(0.1, weight_decay=None)
    >>> for _ in range(2):
    ...     optimizer.apply([keras.ops.array([[2.0, 0.0], [0.0, 1.0]])], [w])
    >>> [round(float(x), 2) for x in keras.ops.reshape(w, (4,))]
    [0.9, 0.0, 0.0, 0.9]
    """

    def __init__(
        self,
        learning_rate: Any = 0.003,
        beta_1: float = 0.95,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        precondition_frequency: int = 10,
        max_precondition_dim: int = 10_000,
        weight_decay: float | None = 0.01,
        **options: Unpack[KerasOptions],
    ) -> None:
        super().__init__("soap", **arguments(Soap, locals()))

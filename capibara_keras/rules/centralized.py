"""Gradient centralisation."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from capibara_keras.rules.wrapper import Wrapper
from capibara_keras.types import Scalars, Tensor

__all__ = ["Centralized"]


@dataclass(frozen=True)
class Centralized(Wrapper):
    """Gradients of matrices and kernels with the mean of each output unit taken off (Yong et al. 2020, Equation 1).

        g ← g - mean(g over all axes but the last)

    Vectors are left alone.
    """

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        rank = len(g.shape)
        if rank > 1:
            g = g - ops.mean(g, axis=tuple(range(rank - 1)), keepdims=True)
        return self.rule.update(g, p, slots, s)

"""A limit for each unit, relative to its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.clip.base import Limits, Memoryless, Norms, no
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["UnitwiseClip"]


@dataclass(frozen=True)
class UnitwiseClip(Memoryless):
    """Adaptive gradient clipping: a unit's gradient is small beside its weights (Brock et al. 2021, Equation 3).

        g_i = g_i min(1, clip_coeff max(||w_i||, 1e-3) / ||g_i||),  i an output unit

    Args:
        clip_coeff: > 0, relative; the paper's range is 0.01 to 0.16.
        include_output: clip the output layer too; the paper leaves it out.

    >>> UnitwiseClip().hyperparameters
    {'clip_coeff': 0.01}
    """

    clip_coeff: float = 0.01
    include_output: bool = False

    by_norm: ClassVar[bool] = False
    SMALLEST_NORM: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        errors.number("clip_coeff", self.clip_coeff, 0, open_low=True)
        errors.boolean("clip_output_layer", self.include_output)

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {"clip_coeff": self.clip_coeff}

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(s.clip_coeff, no(), ops.full_like(x.together, float("nan")))

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        if units is None:
            return g, no()
        size = ops.sqrt(ops.sum(ops.square(g), units, keepdims=True))
        weight = ops.sqrt(ops.sum(ops.square(ops.cast(p, g.dtype)), units, keepdims=True))
        limit = limit * ops.maximum(weight, self.SMALLEST_NORM)
        return g * (limit / ops.maximum(size, limit)), ops.any(size > limit)

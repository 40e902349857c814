"""Adadelta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.base import Rule, decoupled
from capibara_keras.types import Scalars, Tensor

__all__ = ["Adadelta"]


@dataclass(frozen=True)
class Adadelta(Rule):
    """Steps in the unit of the weights, without a rate to tune (Zeiler 2012, Algorithm 1).

        v_t = rho v_{t-1} + (1 - rho) g_t²
        u_t = sqrt(d_{t-1} + epsilon) / sqrt(v_t + epsilon) g_t
        d_t = rho d_{t-1} + (1 - rho) u_t²

    Args:
        rho: decay rate of both means, in [0, 1).
        epsilon: inside the square roots, as in the paper: it sets the size of the first steps; > 0.

    >>> [slot.name for slot in Adadelta().slots_for((2, 3))]
    ['v', 'd']
    """

    rho: float = 0.95
    epsilon: float = 1e-6

    family: ClassVar[str] = "adadelta"
    default_learning_rate: ClassVar[float] = 1.0
    paper: ClassVar[str] = "Zeiler 2012, Algorithm 1"
    use: ClassVar[str] = "Without a rate to tune, where slow starts do no harm."
    state: ClassVar[tuple[str, ...]] = ("v", "d")
    betas: ClassVar[tuple[str, ...]] = ("rho",)
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        v, d = slots
        v = s.rho * v + s.one_minus_rho * g * g
        u = ops.sqrt((d + s.epsilon) / (v + s.epsilon)) * g
        return decoupled(u, p, s), (v, s.rho * d + s.one_minus_rho * u * u)

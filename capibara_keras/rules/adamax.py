"""Adam with the largest gradient in place of the second moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.base import Rule, bias_correction, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Adamax"]


@dataclass(frozen=True)
class Adamax(Rule):
    """Adam in the infinity norm (Kingma & Ba 2015, Algorithm 2).

        m_t = beta_1 m_{t-1} + (1 - beta_1) g_t
        v_t = max(beta_2 v_{t-1}, |g_t|)
        u_t = m_t / (1 - beta_1^t) / (v_t + epsilon)

    Args:
        beta_1, beta_2: decay rates, in [0, 1).
        epsilon: > 0; the paper has none.

    >>> [slot.name for slot in Adamax().slots_for((2, 3))]
    ['m', 'v']
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    family: ClassVar[str] = "adamax"
    default_learning_rate: ClassVar[float] = 2e-3
    paper: ClassVar[str] = "Kingma & Ba 2015, Algorithm 2"
    use: ClassVar[str] = "Sparse or heavy-tailed gradients; embeddings."
    state: ClassVar[tuple[str, ...]] = ("m", "v")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return super().prepare(s, t).replace(correction_1=bias_correction(s.one_minus_beta_1, t))

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = ops.maximum(s.beta_2 * v, s.fresh * ops.abs(g))
        u = m * s.correction_1 / (v + s.epsilon)
        return decoupled(u, p, s), (m, v)

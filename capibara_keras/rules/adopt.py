"""ADOPT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Adopt"]


@dataclass(frozen=True)
class Adopt(Rule):
    """Adam with the second moment of the past only, which converges with any beta_2 (Taniguchi et al. 2024,
    Algorithm 2).

        v_1 = g_1²,  and nothing else at t = 1
        m_t = beta_1 m_{t-1} + (1 - beta_1) clip(g_t / max(sqrt(v_{t-1}), epsilon), ±(t - 1)^(1/4))
        u_t = m_t,  v_t = beta_2 v_{t-1} + (1 - beta_2) g_t²

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: smallest divisor; > 0.
        clip: False leaves out the clipping, as in the paper's Algorithm 1.

    >>> [slot.name for slot in Adopt().slots_for((2, 3))]
    ['m', 'v']
    """

    beta_1: float = 0.9
    beta_2: float = 0.9999
    epsilon: float = 1e-6
    clip: bool = True

    family: ClassVar[str] = "adopt"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Taniguchi et al. 2024, Algorithm 2"
    use: ClassVar[str] = "Where Adam is unstable, or beta_2 cannot be tuned."
    state: ClassVar[tuple[str, ...]] = ("m", "v")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.boolean("clip", self.clip)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        zero, one, first = ops.zeros_like(t), ops.ones_like(t), t == 1
        return s.replace(
            beta_1=ops.where(first, one, s.beta_1),
            one_minus_beta_1=ops.where(first, zero, s.one_minus_beta_1),
            beta_2=ops.where(first, zero, s.beta_2),
            one_minus_beta_2=ops.where(first, one, s.one_minus_beta_2),
            limit=ops.sqrt(ops.sqrt(ops.maximum(t - 1, 0.0))),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v = slots
        step = g / ops.maximum(ops.sqrt(v), s.epsilon)
        if self.clip:
            step = ops.clip(step, -s.limit, s.limit)
        m = s.beta_1 * m + s.one_minus_beta_1 * step
        return decoupled(m, p, s), (m, s.beta_2 * v + s.one_minus_beta_2 * g * g)

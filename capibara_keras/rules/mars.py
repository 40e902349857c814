"""MARS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, bias_correction, decoupled, norm
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Mars"]


@dataclass(frozen=True)
class Mars(Rule):
    """AdamW on a gradient with reduced variance (Yuan et al. 2024, Algorithm 2: MARS-AdamW, approximate).

        c_t = g_t + gamma beta_1 / (1 - beta_1) (g_t - g_{t-1}),  c_1 = g_1
              divided by max(1, |c_t|)
        m_t = beta_1 m_{t-1} + (1 - beta_1) c_t,  v_t = beta_2 v_{t-1} + (1 - beta_2) c_t²
        u_t = m̂_t / (sqrt(v̂_t) + epsilon)

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        gamma: share of the correction, ≥ 0.
        epsilon: outside the square root, after bias correction; > 0.

    >>> [slot.name for slot in Mars().slots_for((2, 3))]
    ['m', 'v', 'last_gradient']
    """

    beta_1: float = 0.95
    beta_2: float = 0.99
    gamma: float = 0.025
    epsilon: float = 1e-8

    family: ClassVar[str] = "mars"
    default_learning_rate: ClassVar[float] = 3e-3
    paper: ClassVar[str] = "Yuan et al. 2024, Algorithm 2"
    use: ClassVar[str] = "Language models, where a step should cost fewer tokens than AdamW's."
    state: ClassVar[tuple[str, ...]] = ("m", "v", "last_gradient")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("gamma", "epsilon")

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("gamma", self.gamma, 0)

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"keep": 1, "correction": 0}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        correction = s.gamma * (1 - s.one_minus_beta_1) / s.one_minus_beta_1
        return s.replace(
            keep=ops.zeros_like(t),
            correction=ops.where(t > 1, correction, ops.zeros_like(correction)),
            correction_1=bias_correction(s.one_minus_beta_1, t),
            correction_2=bias_correction(s.one_minus_beta_2, t),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v, last = slots
        c = g + s.correction * (g - last)
        c = c / ops.maximum(norm(c), 1.0)
        m = s.beta_1 * m + s.one_minus_beta_1 * c
        v = s.beta_2 * v + s.one_minus_beta_2 * c * c
        u = m * s.correction_1 / (ops.sqrt(v * s.correction_2) + s.epsilon)
        return decoupled(u, p, s), (m, v, s.keep * last + s.fresh * g)

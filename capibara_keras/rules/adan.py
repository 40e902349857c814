"""Adan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.base import Rule, bias_correction
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Adan"]


@dataclass(frozen=True)
class Adan(Rule):
    """Adam with Nesterov momentum from differences of gradients (Xie et al. 2022, Algorithm 1).

        d_t = g_t - g_{t-1}, 0 at t = 1
        m_t = beta_1 m_{t-1} + (1 - beta_1) g_t
        v_t = beta_2 v_{t-1} + (1 - beta_2) d_t
        n_t = beta_3 n_{t-1} + (1 - beta_3) (g_t + beta_2 d_t)²
        u_t = (m̂_t + beta_2 v̂_t) / (sqrt(n̂_t) + epsilon),  ^ divides by 1 - beta^t
        w ← (w - rate u_t) / (1 + rate weight_decay)

    The betas are those of the authors' code, one minus the paper's. The decay is the paper's, a proximal step.

    Args:
        beta_1, beta_2, beta_3: decay rates of gradient, difference and second moment, in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.

    >>> [slot.name for slot in Adan().slots_for((2, 3))]
    ['m', 'v', 'n', 'last_gradient']
    """

    beta_1: float = 0.98
    beta_2: float = 0.92
    beta_3: float = 0.99
    epsilon: float = 1e-8

    family: ClassVar[str] = "adan"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Xie et al. 2022, Algorithm 1"
    use: ClassVar[str] = "Vision models with large rates and few epochs; needs twice Adam's memory."
    state: ClassVar[tuple[str, ...]] = ("m", "v", "n", "last_gradient")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "beta_3")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"keep": 1}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return (
            super()
            .prepare(s, t)
            .replace(
                keep=ops.zeros_like(t),
                follows=ops.cast(t > 1, t.dtype),
                look_ahead=1 - s.one_minus_beta_2,
                correction_1=bias_correction(s.one_minus_beta_1, t),
                correction_2=bias_correction(s.one_minus_beta_2, t),
                correction_3=bias_correction(s.one_minus_beta_3, t),
            )
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v, n, last = slots
        d = s.follows * (g - last)
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * d
        n = s.beta_3 * n + s.one_minus_beta_3 * (g + s.look_ahead * d) ** 2
        u = (m * s.correction_1 + s.look_ahead * v * s.correction_2) / (ops.sqrt(n * s.correction_3) + s.epsilon)
        delta = -s.rate * u if s.decay is None else -(s.rate * u + s.decay * p) / (1 + s.decay)
        return delta, (m, v, n, s.keep * last + s.fresh * g)

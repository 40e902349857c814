"""Adam with Nesterov momentum and decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.base import Rule, bias_correction, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["NadamW"]


@dataclass(frozen=True)
class NadamW(Rule):
    """Adam with Nesterov's look-ahead at a constant momentum and decoupled decay (Dozat 2016, Algorithm 8, with
    mu_t = beta_1; Loshchilov & Hutter 2019), as in optax and in AlgoPerf's baseline (Dahl et al. 2023).

        m̂_t = beta_1 m_t / (1 - beta_1^(t+1)) + (1 - beta_1) g_t / (1 - beta_1^t)
        u_t = m̂_t / (sqrt(v_t / (1 - beta_2^t)) + epsilon),  m_t and v_t as in Adam

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.

    >>> [slot.name for slot in NadamW().slots_for((2, 3))]
    ['m', 'v']
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    family: ClassVar[str] = "nadamw"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Dozat 2016, Algorithm 8; Dahl et al. 2023"
    use: ClassVar[str] = "A strong general baseline: the best of AlgoPerf's first-order ones."
    state: ClassVar[tuple[str, ...]] = ("m", "v")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        return s.replace(
            ahead=s.beta_1 * bias_correction(s.one_minus_beta_1, t + 1),
            here=s.one_minus_beta_1 * bias_correction(s.one_minus_beta_1, t),
            correction_2=bias_correction(s.one_minus_beta_2, t),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * g * g
        u = (s.ahead * m + s.here * g) / (ops.sqrt(v * s.correction_2) + s.epsilon)
        return decoupled(u, p, s), (m, v)

"""Adam with Nesterov momentum on a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, bias_correction, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Nadam"]


@dataclass(frozen=True)
class Nadam(Rule):
    """Adam with Nesterov's look-ahead and a momentum that rises (Dozat 2016, Algorithm 8 and Section 4).

        mu_t = beta_1 (1 - 0.96^(t momentum_decay) / 2)
        m̂_t = mu_{t+1} m_t / (1 - mu_1 … mu_{t+1}) + (1 - mu_t) g_t / (1 - mu_1 … mu_t)
        u_t = m̂_t / (sqrt(v_t / (1 - beta_2^t)) + epsilon),  m_t and v_t as in Adam

    The product of all mu so far is state, one number per variable: it has no closed form.

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.
        momentum_decay: > 0; 0.004 in the paper and in torch.

    >>> [slot.shape for slot in Nadam().slots_for((2, 3))]
    [None, None, ()]
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 0.004

    family: ClassVar[str] = "nadam"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Dozat 2016, Algorithm 8"
    use: ClassVar[str] = "Where Adam is used and noise is low; recurrent networks."
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon", "momentum_decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("momentum_decay", self.momentum_decay, 0, open_low=True)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return Slot("m"), Slot("v"), Slot("momentum_product", shape=(), initializer=1.0)

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"momentum": 1}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)

        def momentum(t: Scalar) -> Scalar:
            return s.beta_1 * (1 - 0.5 * ops.exp(-0.040821994520255166 * s.momentum_decay * t))  # ln 0.96

        return s.replace(
            momentum=momentum(t),
            next_momentum=momentum(t + 1),
            correction_2=bias_correction(s.one_minus_beta_2, t),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v, product = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * g * g
        product = product * s.momentum
        ahead = s.next_momentum / (1 - product * s.next_momentum) * m
        here = (1 - s.momentum) / ops.maximum(1 - product, 1e-30) * g  # frozen before the first update: 0 g / 0
        u = (ahead + here) / (ops.sqrt(v * s.correction_2) + s.epsilon)
        return decoupled(u, p, s), (m, v, product)

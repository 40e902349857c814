"""Adam and AMSGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, bias_correction, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Adam"]


@dataclass(frozen=True)
class Adam(Rule):
    """Steps scaled by running moments of the gradient (Kingma & Ba 2015, Algorithm 1).

        m_t = beta_1 m_{t-1} + (1 - beta_1) g_t
        v_t = beta_2 v_{t-1} + (1 - beta_2) g_t²
        u_t = m_t / (1 - beta_1^t) / (sqrt(v_t / (1 - beta_2^t)) + epsilon)

    With `amsgrad`, the largest v so far stands in for v_t in u_t (Reddi, Kale & Kumar 2018, Algorithm 2; of
    the raw v, as torch and Keras have it). Without `correct_bias`, both corrections are 1 (the Adam of the
    original BERT).

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.

    >>> Adam(beta_2=0.75).hyperparameters["one_minus_beta_2"]
    0.25
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    amsgrad: bool = False
    correct_bias: bool = True

    family: ClassVar[str] = "adam"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Kingma & Ba 2015, Algorithm 1"
    use: ClassVar[str] = "The first choice where nothing is known."
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.boolean("amsgrad", self.amsgrad)
        errors.boolean("correct_bias", self.correct_bias)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        names = ("m", "v", "v_max") if self.amsgrad else ("m", "v")
        return tuple(Slot(name) for name in names)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        if not self.correct_bias:
            return s.replace(correction_1=1.0, correction_2=1.0)
        return s.replace(
            correction_1=bias_correction(s.one_minus_beta_1, t),
            correction_2=bias_correction(s.one_minus_beta_2, t),
        )

    def average(self, slots: tuple[Tensor, ...], s: Scalars) -> Tensor:
        """The mean of earlier gradients."""
        return slots[0] * s.correction_1

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v, *v_max = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * g * g
        v_max = [ops.maximum(v_max[0], v)] if self.amsgrad else []
        second = v_max[0] if self.amsgrad else v
        u = m * s.correction_1 / (ops.sqrt(second * s.correction_2) + s.epsilon)
        return decoupled(u, p, s), (m, v, *v_max)

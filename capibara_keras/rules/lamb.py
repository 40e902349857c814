"""LAMB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.base import Rule, bias_correction, decay_per_rate, trust_ratio
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Lamb"]


@dataclass(frozen=True)
class Lamb(Rule):
    """Adam's step at the length of the weights, layer by layer (You et al. 2020, Algorithm 2).

        r_t = m̂_t / (sqrt(v̂_t) + epsilon) + weight_decay w,  m̂ and v̂ as in Adam
        w ← w - rate |w| / |r_t| r_t;  the ratio is 1 where one of the norms is 0

    The decay stands inside of the ratio, so that it does not lengthen the step.

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.

    >>> [slot.name for slot in Lamb().slots_for((2, 3))]
    ['m', 'v']
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6

    family: ClassVar[str] = "lamb"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "You et al. 2020, Algorithm 2"
    use: ClassVar[str] = "Transformers with very large batches."
    state: ClassVar[tuple[str, ...]] = ("m", "v")
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return (
            super()
            .prepare(s, t)
            .replace(
                correction_1=bias_correction(s.one_minus_beta_1, t),
                correction_2=bias_correction(s.one_minus_beta_2, t),
            )
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        v = s.beta_2 * v + s.one_minus_beta_2 * g * g
        r = m * s.correction_1 / (ops.sqrt(v * s.correction_2) + s.epsilon)
        if s.decay is not None:
            r = r + decay_per_rate(s) * p
        return -s.rate * trust_ratio(p, r) * r, (m, v)

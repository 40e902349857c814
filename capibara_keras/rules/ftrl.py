"""FTRL-proximal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot
from capibara_keras.types import Scalars, Tensor

__all__ = ["Ftrl"]


@dataclass(frozen=True)
class Ftrl(Rule):
    """Follow the regularised leader, with weights that are exactly zero (McMahan et al. 2013, Algorithm 1).

        n_t = n_{t-1} + g_t²,  n_0 = initial_accumulator_value,  P(n) = n^-learning_rate_power / rate
        z_t = z_{t-1} + g_t + 2 l2_shrinkage w - (P(n_t) - P(n_{t-1})) w
        w ← (sign(z_t) l1 - z_t) / (P(n_t) + 2 l2 + beta / rate)  where |z_t| > l1, else 0

    As in Keras, n_t also counts in z without the shrinkage. Where the rate is 0, the weight stays.

    Args:
        learning_rate_power: ≤ 0.
        initial_accumulator_value: ≥ 0; read when the optimizer is built.
        l1_regularization_strength, l2_regularization_strength: ≥ 0.
        l2_shrinkage_regularization_strength: ≥ 0; acts on the gradient.
        beta: the paper's, ≥ 0.

    >>> [slot.name for slot in Ftrl().slots_for((2, 3))]
    ['n', 'z']
    """

    learning_rate_power: float = -0.5
    initial_accumulator_value: float = 0.1
    l1_regularization_strength: float = 0.0
    l2_regularization_strength: float = 0.0
    l2_shrinkage_regularization_strength: float = 0.0
    beta: float = 0.0

    family: ClassVar[str] = "ftrl"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "McMahan et al. 2013, Algorithm 1"
    use: ClassVar[str] = "Linear models with many sparse features."
    numbers: ClassVar[tuple[str, ...]] = (
        "learning_rate_power",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
    )

    def __post_init__(self) -> None:
        errors.number("learning_rate_power", self.learning_rate_power, high=0)
        for name in ("initial_accumulator_value", *self.numbers[1:]):
            errors.number(name, getattr(self, name), 0)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return Slot("n", initializer=float(self.initial_accumulator_value)), Slot("z")

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        n, z = slots
        positive = s.rate > 0
        rate = ops.where(positive, s.rate, ops.ones_like(s.rate))
        moves = s.fresh * ops.cast(positive, s.rate.dtype)
        new_n = n + moves * g * g
        grown = (_power(new_n, s) - _power(n, s)) / rate
        new_z = z + moves * (g + 2 * s.l2_shrinkage_regularization_strength * p - grown * p)
        l1 = s.l1_regularization_strength
        curvature = (_power(new_n, s) + s.beta) / rate + 2 * s.l2_regularization_strength
        w = (ops.clip(new_z, -l1, l1) - new_z) / ops.maximum(curvature, 1e-30)
        return moves * (w - p) - (0.0 if s.decay is None else s.decay * p), (new_n, new_z)


def _power(n: Tensor, s: Scalars) -> Tensor:
    """n^-learning_rate_power, 0 at 0."""
    return ops.where(n > 0, ops.exp(-s.learning_rate_power * ops.log(ops.maximum(n, 1e-30))), ops.zeros_like(n))

"""Adagrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, decoupled
from capibara_keras.types import Scalars, Tensor

__all__ = ["Adagrad"]


@dataclass(frozen=True)
class Adagrad(Rule):
    """Rates that fall with the sum of squared gradients (Duchi, Hazan & Singer 2011, Figure 1, diagonal).

        a_t = a_{t-1} + g_t²,  a_0 = initial_accumulator_value
        u_t = g_t / (sqrt(a_t) + epsilon)

    Args:
        initial_accumulator_value: ≥ 0; read when the optimizer is built.
        epsilon: outside the square root; > 0.

    >>> Adagrad(initial_accumulator_value=0.1).slots_for((2, 3))[0].initializer
    0.1
    """

    initial_accumulator_value: float = 0.0
    epsilon: float = 1e-8

    family: ClassVar[str] = "adagrad"
    default_learning_rate: ClassVar[float] = 1e-2
    paper: ClassVar[str] = "Duchi, Hazan & Singer 2011, Figure 1"
    use: ClassVar[str] = "Convex problems and sparse features."
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("initial_accumulator_value", self.initial_accumulator_value, 0)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return (Slot("accumulator_of_squares", initializer=float(self.initial_accumulator_value)),)

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        (a,) = slots
        a = a + s.fresh * g * g
        return decoupled(g / (ops.sqrt(a) + s.epsilon), p, s), (a,)

"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor
from capibara_keras.warning import warn

__all__ = ["SGD"]


@dataclass(frozen=True)
class SGD(Rule):
    """Gradient descent with (heavy-ball or Nesterov) momentum (Sutskever et al. 2013, Equations 1-4).

        b_1 = g_1,  b_t = momentum b_{t-1} + (1 - dampening) g_t
        u_t = b_t,  or g_t + momentum b_t with nesterov

    The learning rate stays outside the buffer, as in torch and optax, so that a change of the rate acts at
    once. Nesterov together with dampening, which torch refuses, is what the formula says.

    Args:
        momentum: in [0, 1); 0 keeps no state.
        dampening: in [0, 1].

    >>> [slot.name for slot in SGD(momentum=0.9).slots_for((2, 3))]
    ['momentum']
    """

    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    family: ClassVar[str] = "sgd"
    default_learning_rate: ClassVar[float] = 1e-2
    paper: ClassVar[str] = "Sutskever et al. 2013, Equations 1-4"
    use: ClassVar[str] = "Convolutional networks with a tuned rate; the least memory."

    def __post_init__(self) -> None:
        errors.number("momentum", self.momentum, 0, 1, open_high=True)
        errors.number("dampening", self.dampening, 0, 1)
        errors.boolean("nesterov", self.nesterov)
        if self.nesterov and self.dampening:
            warn("SGD: nesterov together with dampening, which torch refuses; u = g + momentum b is used")

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return (Slot("momentum"),) if self.momentum else ()

    @property
    def hyperparameters(self) -> dict[str, float]:
        if not self.momentum:
            return {}
        return {"momentum": self.momentum, "one_minus_dampening": 1 - self.dampening}

    @property
    def neutral(self) -> dict[str, float]:
        return {"rate": 0, "decay": 0, "momentum": 1, "one_minus_dampening": 0}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        if not self.momentum:
            return s
        return s.replace(one_minus_dampening=ops.where(t == 1, ops.ones_like(t), s.one_minus_dampening))

    def average(self, slots: tuple[Tensor, ...], s: Scalars) -> Tensor | None:
        """The mean of earlier gradients, once the buffer has filled; `None` without one."""
        return slots[0] * (1 - s.momentum) / ops.maximum(s.one_minus_dampening, 1e-30) if self.momentum else None

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        if not self.momentum:
            return decoupled(g, p, s), ()
        b = s.momentum * slots[0] + s.one_minus_dampening * g
        u = g + s.momentum * b if self.nesterov else b
        return decoupled(u, p, s), (b,)

"""RMSprop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, decoupled
from capibara_keras.types import Scalars, Tensor

__all__ = ["RMSprop"]


@dataclass(frozen=True)
class RMSprop(Rule):
    """Steps divided by a running root mean square of the gradient (Tieleman & Hinton 2012, Lecture 6e).

        v_t = rho v_{t-1} + (1 - rho) g_t²
        u_t = g_t / (sqrt(v_t) + epsilon);  with momentum b_t = momentum b_{t-1} + u_t in its place

    `centered` subtracts the square of the running mean, v_t - a_t² (Graves 2013, Equations 38-45). The learning
    rate stays outside the buffer, as in torch.

    Args:
        rho: decay rate of the mean of squares, in [0, 1).
        momentum: in [0, 1); 0 keeps no buffer.
        epsilon: outside the square root; > 0.
        centered: divide by the standard deviation instead.

    >>> [slot.name for slot in RMSprop(momentum=0.9, centered=True).slots_for((2, 3))]
    ['v', 'mean', 'momentum']
    """

    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-8
    centered: bool = False

    family: ClassVar[str] = "rmsprop"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Tieleman & Hinton 2012, Lecture 6e"
    use: ClassVar[str] = "Recurrent networks and reinforcement learning; half of Adam's memory."
    betas: ClassVar[tuple[str, ...]] = ("rho",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("epsilon", self.epsilon, 1e-30)
        errors.number("momentum", self.momentum, 0, 1, open_high=True)
        errors.boolean("centered", self.centered)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        names = ["v"] + ["mean"] * self.centered + ["momentum"] * (self.momentum > 0)
        return tuple(Slot(name) for name in names)

    @property
    def hyperparameters(self) -> dict[str, float]:
        momentum = {"momentum": self.momentum} if self.momentum else {}
        return super().hyperparameters | {"epsilon": self.epsilon} | momentum

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"momentum": 1}

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        v, *rest = slots
        v = s.rho * v + s.one_minus_rho * g * g
        new, variance = [v], v
        if self.centered:
            mean = s.rho * rest.pop(0) + s.one_minus_rho * g
            new.append(mean)
            variance = ops.maximum(v - mean * mean, 0.0)  # rounding can make it negative
        u = g / (ops.sqrt(variance) + s.epsilon)
        if self.momentum:
            u = s.momentum * rest.pop(0) + s.fresh * u
            new.append(u)
        return decoupled(u, p, s), tuple(new)

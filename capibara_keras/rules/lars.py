"""LARS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from capibara_keras import errors
from capibara_keras.rules.base import Rule, decay_per_rate, trust_ratio
from capibara_keras.types import Scalars, Tensor

__all__ = ["Lars"]


@dataclass(frozen=True)
class Lars(Rule):
    """Momentum with steps in proportion to the weights, layer by layer (You, Gitman & Ginsburg 2017, Algorithm 1).

        r_t = g_t + weight_decay w
        b_t = momentum b_{t-1} + trust_coefficient |w| / |r_t| r_t
              the ratio is 1 where one of the norms is 0
        u_t = b_t,  or with nesterov the ratio's step + momentum b_t

    As in optax, the norm is that of the sum; the paper has |g_t| + weight_decay |w|. The rate stays outside the
    buffer, so that a change of the rate acts at once.

    Args:
        momentum: in [0, 1).
        trust_coefficient: > 0.
        nesterov: look ahead.

    >>> [slot.name for slot in Lars().slots_for((2, 3))]
    ['momentum']
    """

    momentum: float = 0.9
    trust_coefficient: float = 1e-3
    nesterov: bool = False

    family: ClassVar[str] = "lars"
    default_learning_rate: ClassVar[float] = 1.0
    paper: ClassVar[str] = "You, Gitman & Ginsburg 2017, Algorithm 1"
    use: ClassVar[str] = "Convolutional networks with very large batches."
    state: ClassVar[tuple[str, ...]] = ("momentum",)
    numbers: ClassVar[tuple[str, ...]] = ("momentum", "trust_coefficient")

    def __post_init__(self) -> None:
        errors.number("momentum", self.momentum, 0, 1, open_high=True)
        errors.number("trust_coefficient", self.trust_coefficient, 0, open_low=True)
        errors.boolean("nesterov", self.nesterov)

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"momentum": 1}

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        (b,) = slots
        r = g if s.decay is None else g + decay_per_rate(s) * p
        step = trust_ratio(p, r, s.trust_coefficient) * r
        b = s.momentum * b + s.fresh * step
        u = step + s.momentum * b if self.nesterov else b
        return -s.rate * u, (b,)

"""Schedule-Free AdamW and SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, bias_correction
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["ScheduleFree", "ScheduleFreeAdamW", "ScheduleFreeSGD"]


@dataclass(frozen=True)
class ScheduleFree(Rule):
    """What both have in common: an average in the place of a schedule (Defazio et al. 2024, Equations 2-4).

        y_t = (1 - beta_1) z_t + beta_1 x_t,  where gradients are taken
        z_{t+1} = z_t - rate (u_t + weight_decay y_t)
        x_{t+1} = (1 - c) x_t + c z_{t+1},  c = largest_rate² / Σ largest_rate²

    The model holds y while it trains, and x when it is evaluated or saved; x is found from y and z.
    """

    beta_1: float = 0.9

    moments: ClassVar[tuple[str, ...]] = ()
    two_points: ClassVar[bool] = True
    betas: ClassVar[tuple[str, ...]] = ("beta_1",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("beta_1", self.beta_1, 0, 1, open_low=True, open_high=True)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        moments = (Slot(name) for name in self.moments)
        return Slot("z", moment=False), Slot("weight_sum", ()), Slot("largest_rate", ()), *moments

    @property
    def neutral(self) -> dict[str, Any]:
        return super().neutral | {"first": 0}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return super().prepare(s, t).replace(first=ops.cast(t == 1, t.dtype), share=1 - s.one_minus_beta_1)

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        z, total, largest, *moments = slots
        z = ops.where(s.first > 0, p, z)
        largest = ops.maximum(largest, s.rate)
        weight = s.fresh * largest * largest
        total = total + weight
        c = ops.where(total > 0, weight / ops.where(total > 0, total, ops.ones_like(total)), ops.zeros_like(total))
        direction, new = self.direction(g, tuple(moments), s)
        step = s.rate * direction if s.decay is None else s.rate * direction + s.decay * p
        return c * (z - p) + (s.share * (1 - c) - 1) * step, (z - step, total, largest, *new)

    def direction(self, g: Tensor, moments: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        """u_t and the new moments."""
        return g, moments

    def evaluation(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        """x of y."""
        return p + (1 - 1 / self.beta_1) * (slots[0] - p)

    def training(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        """y of x."""
        return p + (1 - self.beta_1) * (slots[0] - p)


@dataclass(frozen=True)
class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-Free AdamW (Defazio et al. 2024, Algorithm 1): u_t = g_t / (sqrt(v̂_t) + epsilon), v_t as in Adam.

    The model holds another point while it trains than when it is evaluated; see `Optimizer.evaluation_mode`.

    Args:
        beta_1: share of the average in the point where gradients are taken, in (0, 1).
        beta_2: decay rate of the second moment, in [0, 1).
        epsilon: outside the square root, after bias correction; > 0.

    >>> [slot.name for slot in ScheduleFreeAdamW().slots_for((2, 3))]
    ['z', 'weight_sum', 'largest_rate', 'v']
    """

    beta_2: float = 0.999
    epsilon: float = 1e-8

    family: ClassVar[str] = "schedulefreeadamw"
    default_learning_rate: ClassVar[float] = 2.5e-3
    paper: ClassVar[str] = "Defazio et al. 2024, Algorithm 1"
    use: ClassVar[str] = "Where the length of the training is not known; with a warmup, without a decay of the rate."
    moments: ClassVar[tuple[str, ...]] = ("v",)
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return super().prepare(s, t).replace(correction_2=bias_correction(s.one_minus_beta_2, t))

    def direction(self, g: Tensor, moments: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        v = s.beta_2 * moments[0] + s.one_minus_beta_2 * g * g
        return g / (ops.sqrt(v * s.correction_2) + s.epsilon), (v,)


@dataclass(frozen=True)
class ScheduleFreeSGD(ScheduleFree):
    """Schedule-Free SGD (Defazio et al. 2024, Equations 2-4): u_t = g_t.

    The model holds another point while it trains than when it is evaluated; see `Optimizer.evaluation_mode`.

    Args:
        beta_1: share of the average in the point where gradients are taken, in (0, 1).

    >>> [slot.name for slot in ScheduleFreeSGD().slots_for((2, 3))]
    ['z', 'weight_sum', 'largest_rate']
    """

    family: ClassVar[str] = "schedulefreesgd"
    default_learning_rate: ClassVar[float] = 1.0
    paper: ClassVar[str] = "Defazio et al. 2024, Equations 2-4"
    use: ClassVar[str] = "Convolutional networks without a schedule; ten times the rate of SGD with momentum."

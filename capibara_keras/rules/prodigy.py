"""Prodigy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, decoupled
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Prodigy"]


@dataclass(frozen=True)
class Prodigy(Rule):
    """Adam that finds its rate: an estimate d of how far the solution is (Mishchenko & Defazio 2024, Algorithm 4).

        m_t = beta_1 m + (1 - beta_1) d_t g_t
        v_t = beta_2 v + (1 - beta_2) d_t² g_t²
        r_t = beta_3 r + (1 - beta_3) rate d_t² <g_t, w_0 - w>,  beta_3 = sqrt(beta_2)
        s_t = beta_3 s + (1 - beta_3) rate d_t² g_t
        w ← w - rate d_t m_t / (sqrt(v_t) + d_t epsilon)
        d_{t+1} = max(d_t, growth r_t / |s_t|_1),  over all variables

    The rate stays 1, with any schedule on it. Decay is rate d_t weight_decay w.

    Args:
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: outside the square root; > 0.
        initial_distance: d_1, > 0; only its being small matters.
        distance_factor: growth, > 0: what the estimate is multiplied by.

    >>> [slot.name for slot in Prodigy().slots_for((2, 3))]
    ['m', 'v', 's', 'start', 'd', 'r', 's_norm']
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    initial_distance: float = 1e-6
    distance_factor: float = 1.0

    family: ClassVar[str] = "prodigy"
    default_learning_rate: ClassVar[float] = 1.0
    paper: ClassVar[str] = "Mishchenko & Defazio 2024, Algorithm 4"
    use: ClassVar[str] = "Fine-tuning and small models without a rate to tune; needs twice Adam's memory."
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon", "distance_factor")
    gathered: ClassVar[tuple[str, ...]] = ("d", "r", "s_norm")

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.number("initial_distance", self.initial_distance, 0, open_low=True)
        errors.number("distance_factor", self.distance_factor, 0, open_low=True)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        scalars = (Slot("d", (), None, self.initial_distance), Slot("r", ()), Slot("s_norm", ()))
        return Slot("m"), Slot("v"), Slot("s"), Slot("start", moment=False), *scalars

    @property
    def neutral(self) -> dict[str, Any]:
        return super().neutral | {"beta_3": 1, "one_minus_beta_3": 0, "first": 0}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        d, r, s_norm = ops.max(s.d), ops.sum(s.r), ops.sum(s.s_norm)
        known = s_norm > 0
        estimate = s.distance_factor * r / ops.where(known, s_norm, ops.ones_like(r))
        d = ops.maximum(d, ops.where(known, estimate, ops.zeros_like(d)))
        beta_3 = ops.sqrt(s.beta_2)
        return s.replace(
            d=d,
            r=None,
            s_norm=None,
            whole_rate=s.rate,
            rate=s.rate * d,
            decay=None if s.decay is None else s.decay * d,
            beta_3=beta_3,
            one_minus_beta_3=s.one_minus_beta_2 / (1 + beta_3),
            first=ops.cast(t == 1, t.dtype),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        m, v, direction, start, d, r, s_norm = slots
        start, goes = ops.where(s.first > 0, p, start), s.fresh > 0
        weight = s.one_minus_beta_3 * s.whole_rate * s.d * s.d
        r = s.beta_3 * r + weight * ops.sum(g * (start - p))
        direction = s.beta_3 * direction + weight * g
        m = s.beta_1 * m + s.one_minus_beta_1 * s.d * g
        v = s.beta_2 * v + s.one_minus_beta_2 * s.d * s.d * g * g
        u = m / (ops.sqrt(v) + s.d * s.epsilon)
        s_norm = ops.where(goes, ops.sum(ops.abs(direction)), s_norm)
        return decoupled(u, p, s), (m, v, direction, start, ops.where(goes, s.d, d), r, s_norm)

"""Adafactor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.base import Rule, Shape, Slot, root_mean_square
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Adafactor"]


@dataclass(frozen=True)
class Adafactor(Rule):
    """Adam's scaling from row and column means alone (Shazeer & Stern 2018, Algorithms 4 and 5).

        beta_2(t) = 1 - t^beta_2_decay
        r_t = beta_2(t) r_{t-1} + (1 - beta_2(t)) mean over columns of (g_t² + epsilon_1)
        c_t = the same over rows
        u_t = g_t / sqrt(r_t c_t / mean(r_t)),
              divided by max(1, RMS(u_t) / clip_threshold)
        w ← w - rate max(epsilon_2, RMS(w)) u_t

    Rows and columns are the two largest axes, as in optax. Where the smaller of them has fewer than
    `min_dim_size_to_factor` entries, there are none and the second moment is kept whole.

    Args:
        beta_2_decay: exponent, < 0.
        epsilon_1: added to squares of gradients, > 0.
        epsilon_2: smallest scale of a variable, > 0.
        clip_threshold: of the root mean square of a step, > 0.
        relative_step: the rate is at most 1 / sqrt(t).
        scale_parameter: multiply the rate by the scale of the variable; False: as it is.
        min_dim_size_to_factor: ≥ 1.

    >>> [(slot.name, slot.shape) for slot in Adafactor().slots_for((256, 512))]
    [('rows', (256,)), ('columns', (512,))]
    """

    beta_2_decay: float = -0.8
    epsilon_1: float = 1e-30
    epsilon_2: float = 1e-3
    clip_threshold: float = 1.0
    relative_step: bool = True
    scale_parameter: bool = True
    min_dim_size_to_factor: int = 128

    family: ClassVar[str] = "adafactor"
    default_learning_rate: ClassVar[float] = 1e-2
    paper: ClassVar[str] = "Shazeer & Stern 2018, Algorithms 4 and 5"
    use: ClassVar[str] = "Models whose state would not fit."
    numbers: ClassVar[tuple[str, ...]] = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold")

    def __post_init__(self) -> None:
        errors.number("beta_2_decay", self.beta_2_decay, high=0, open_high=True)
        errors.number("epsilon_1", self.epsilon_1, 1e-37)
        errors.number("epsilon_2", self.epsilon_2, 0, open_low=True)
        errors.number("clip_threshold", self.clip_threshold, 0, open_low=True)
        errors.boolean("relative_step", self.relative_step)
        errors.boolean("scale_parameter", self.scale_parameter)
        size = errors.integer("min_dim_size_to_factor", self.min_dim_size_to_factor, 1)
        object.__setattr__(self, "min_dim_size_to_factor", size)

    def axes(self, shape: Shape) -> tuple[int, int] | None:
        """The axes of rows and columns: the second largest and the largest; `None` where nothing is factored."""
        order = sorted(range(len(shape)), key=lambda i: shape[i])
        if len(shape) < 2 or shape[order[-2]] < self.min_dim_size_to_factor:
            return None
        return order[-2], order[-1]

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        axes = self.axes(shape)
        if axes is None:
            return (Slot("v"),)
        rows, columns = axes
        return Slot("rows", _without(shape, columns)), Slot("columns", _without(shape, rows))

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"beta_2": 1, "one_minus_beta_2": 0}

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        fresh = ops.exp(s.beta_2_decay * ops.log(t))
        s = s.replace(beta_2=1 - fresh, one_minus_beta_2=fresh)
        return s.replace(rate=ops.minimum(s.rate, 1 / ops.sqrt(t))) if self.relative_step else s

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        axes, squares = self.axes(tuple(p.shape)), g * g + s.epsilon_1
        new: tuple[Tensor, ...]
        if axes is None:
            v = s.beta_2 * slots[0] + s.one_minus_beta_2 * squares
            new, u = (v,), g * _inverse_root(v, s)
        else:
            rows, columns = axes
            r = s.beta_2 * slots[0] + s.one_minus_beta_2 * ops.mean(squares, axis=columns)
            c = s.beta_2 * slots[1] + s.one_minus_beta_2 * ops.mean(squares, axis=rows)
            mean = ops.mean(r, axis=rows - (rows > columns), keepdims=True)
            r_share = _inverse_root(r / ops.maximum(mean, s.epsilon_1), s)
            new, u = (r, c), g * ops.expand_dims(r_share, columns) * ops.expand_dims(_inverse_root(c, s), rows)
        u = u / ops.maximum(1.0, root_mean_square(u) / s.clip_threshold)
        rate = s.rate * ops.maximum(s.epsilon_2, root_mean_square(p)) if self.scale_parameter else s.rate
        return -rate * u if s.decay is None else -(rate * u + s.decay * p), new


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _inverse_root(x: Tensor, s: Scalars) -> Tensor:
    """1 / sqrt(x), finite also where a slot is still 0."""
    return ops.rsqrt(ops.maximum(x, s.epsilon_1))

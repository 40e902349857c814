"""No limit, or one that a number gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.clip.base import ByFactor, Limits, Memoryless, Norms, factor, no
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["ClipByGlobalNorm", "ClipByNorm", "ClipByValue", "Limited", "NoClip"]


@dataclass(frozen=True)
class NoClip(Memoryless):
    """Gradients pass unchanged.

    >>> NoClip().hyperparameters
    {}
    """

    by_norm: ClassVar[bool] = True

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {}

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(ops.ones_like(x.together), no(), ops.full_like(x.together, float("nan")))

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        return g, no()


@dataclass(frozen=True)
class Limited(Memoryless):
    """Has a limit > 0, in units of the gradient."""

    limit: float

    def __post_init__(self) -> None:
        errors.number("clip_value", self.limit, 0, open_low=True)

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {"clip_limit": self.limit}


@dataclass(frozen=True)
class ClipByGlobalNorm(ByFactor, Limited):
    """One factor for all variables (Pascanu, Mikolov & Bengio 2013, Algorithm 1).

        g = g min(1, limit / ||g||),  ||g|| over all variables together

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByGlobalNorm(5.0).hyperparameters
    {'clip_limit': 5.0}
    """

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(factor(x.together, s.clip_limit), x.together > s.clip_limit, s.clip_limit)


@dataclass(frozen=True)
class ClipByNorm(ByFactor, Limited):
    """A factor for each variable by itself: g_i = g_i min(1, limit / ||g_i||).

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByNorm(1.0).limit
    1.0
    """

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(factor(x.each, s.clip_limit), ops.any(x.each > s.clip_limit), s.clip_limit)


@dataclass(frozen=True)
class ClipByValue(Limited):
    """Each entry to [-limit, limit].

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByValue(0.5).limit
    0.5
    """

    by_norm: ClassVar[bool] = False

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(s.clip_limit, no(), s.clip_limit)

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        return ops.clip(g, -limit, limit), ops.max(ops.abs(g)) > limit

"""Gradient clipping as pure functions of the gradients that were summed over replicas and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from keras import ops

from capibara_keras import errors
from capibara_keras.types import Scalar, Tensor

__all__ = ["ClipByGlobalNorm", "ClipByNorm", "ClipByValue", "ClipPolicy", "Clipped", "NoClip"]


class Clipped(NamedTuple):
    """Gradients after clipping, and whether anything was clipped (a boolean scalar)."""

    grads: list[Tensor]
    clipped: Scalar


class ClipPolicy(Protocol):
    """How gradients are limited. `limit` is a hyperparameter: it can change without a new trace."""

    @property
    def limit(self) -> float | None:
        """The limit, in units of the gradient; `None` where nothing is clipped."""

    def clip(self, grads: Sequence[Tensor], norms: Tensor, limit: Scalar) -> Clipped:
        """Clip `grads`, whose L2 norms are the vector `norms`."""


@dataclass(frozen=True)
class NoClip:
    """Gradients pass unchanged.

    >>> NoClip().limit is None
    True
    """

    @property
    def limit(self) -> float | None:
        return None

    def clip(self, grads: Sequence[Tensor], norms: Tensor, limit: Scalar) -> Clipped:
        return Clipped(list(grads), ops.zeros((), "bool"))


@dataclass(frozen=True)
class _Limited:
    limit: float

    def __post_init__(self) -> None:
        errors.number("limit", self.limit, 0, open_low=True)


@dataclass(frozen=True)
class ClipByGlobalNorm(_Limited):
    """One factor for all variables (Pascanu, Mikolov & Bengio 2013, Algorithm 1).

        g = g min(1, limit / ||g||),  ||g|| over all variables together

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByGlobalNorm(5.0).clip([ops.array([3.0, 4.0])], ops.array([5.0]), 5.0).grads[0].tolist()
    [3.0, 4.0]
    """

    def clip(self, grads: Sequence[Tensor], norms: Tensor, limit: Scalar) -> Clipped:
        norm = ops.sqrt(ops.sum(norms * norms))
        factor = limit / ops.maximum(norm, limit)
        return Clipped([g * ops.cast(factor, g.dtype) for g in grads], norm > limit)


@dataclass(frozen=True)
class ClipByNorm(_Limited):
    """A factor for each variable by itself: g_i = g_i min(1, limit / ||g_i||).

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByNorm(1.0).limit
    1.0
    """

    def clip(self, grads: Sequence[Tensor], norms: Tensor, limit: Scalar) -> Clipped:
        factors = limit / ops.maximum(norms, limit)
        clipped = [g * ops.cast(factors[i], g.dtype) for i, g in enumerate(grads)]
        return Clipped(clipped, ops.any(norms > limit))


@dataclass(frozen=True)
class ClipByValue(_Limited):
    """Each entry to [-limit, limit].

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByValue(0.5).limit
    0.5
    """

    def clip(self, grads: Sequence[Tensor], norms: Tensor, limit: Scalar) -> Clipped:
        limits = [ops.cast(limit, g.dtype) for g in grads]
        clipped = [ops.clip(g, -c, c) for g, c in zip(grads, limits, strict=True)]
        beyond = [ops.max(ops.abs(g)) > c for g, c in zip(grads, limits, strict=True)]
        return Clipped(clipped, ops.any(ops.stack(beyond)))

"""What a clip policy is: one decision per update, and a pure function per variable."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

from keras import ops

from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["ByFactor", "ClipPolicy", "Limits", "Memoryless", "Norms", "factor", "no"]


class Norms(NamedTuple):
    """What a policy decides on: gradients that are not finite have norm 0 here.

    Attributes:
        each: L2 norm of each gradient that the policy acts on, a vector.
        together: L2 norm over all variables of the optimizer, those of other policies included.
        history: for policies with one: recent norms, a row per variable or one row (NaN where not filled).
    """

    each: Tensor
    together: Scalar
    history: Tensor | None = None


class Limits(NamedTuple):
    """What a policy has decided for this update.

    Attributes:
        limit: what `ClipPolicy.clip` takes: one scalar for all variables, or a vector with one entry each.
        clipped: whether anything is clipped, as far as norms tell.
        threshold: the (lowest) limit in force, in units of the gradient's norm or entries; `nan` for none.
    """

    limit: Tensor
    clipped: Scalar
    threshold: Scalar


class ClipPolicy(Protocol):
    """How gradients are limited: one decision per update, and a pure function per variable.

    Attributes:
        by_norm: whether norms alone tell what is clipped; else `clip` says so for each variable.
    """

    by_norm: ClassVar[bool]

    @property
    def history_length(self) -> int:
        """How many norms the policy remembers; 0 for none."""

    @property
    def per_parameter(self) -> bool:
        """Whether it remembers them for each variable by itself."""

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Numbers that can change without a new trace; `s` has them as attributes."""

    def limits(self, x: Norms, s: Scalars) -> Limits:
        """Decide from the norms."""

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        """The clipped gradient, and whether it was clipped (where `by_norm` is false).

        Args:
            g: finite gradient.
            p: its parameter.
            limit: from `limits`, in the gradient's dtype.
            units: axes that one unit of the parameter spans, or `None` to leave it unclipped unit by unit.
        """


class Memoryless:
    """Remembers no norms."""

    history_length: ClassVar[int] = 0
    per_parameter: ClassVar[bool] = False


class ByFactor:
    """The limit is a factor ≤ 1."""

    by_norm: ClassVar[bool] = True

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        return g * limit, no()


def factor(norm: Tensor, limit: Tensor) -> Tensor:
    """min(1, limit / norm), also where both are 0."""
    return ops.where(norm > limit, limit / ops.maximum(norm, 1e-30), ops.ones_like(norm))


def no() -> Scalar:
    """A scalar False."""
    return ops.zeros((), "bool")

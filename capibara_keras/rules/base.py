"""What an update rule is: declared state, scalars prepared once per update, one pure function per variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from keras import ops

from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Slot", "UpdateRule", "complement_of_power", "decoupled"]


@dataclass(frozen=True)
class Slot:
    """State that a rule keeps for each variable.

    Args:
        name: part of the state variable's name and of its key in checkpoints.
        shape: `None` for the parameter's own shape.
        dtype: `None` for the parameter's dtype, but at least float32.
        initializer: a Keras initializer or its name.

    >>> Slot("m").initializer
    'zeros'
    """

    name: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    initializer: str = "zeros"


class UpdateRule(Protocol):
    """An optimization algorithm as data and pure functions.

    Attributes:
        family: rules of one family keep the same state, and can load each other's.
        default_learning_rate: the rate where the user names none.
        neutral: the value of each scalar that makes `update` return a zero delta and the slots unchanged,
            bit for bit, for any finite gradient. This is how a non-finite update is skipped: scalars cost
            nothing, a selection between old and new tensors costs a pass over memory.

    A rule that keeps a mean of earlier gradients may say so with a method `average(slots, s)` that returns it:
    monitoring measures the noise of the gradient against it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    family: ClassVar[str]
    default_learning_rate: ClassVar[float]
    neutral: ClassVar[Mapping[str, float]]

    @property
    def slots(self) -> tuple[Slot, ...]:
        """State per variable, in the order in which `update` takes and returns it."""

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The numbers that can change without a new trace. A beta is kept as 1 - beta: in float32,
        1 - 0.999 would be wrong by 5e-5."""

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        """Derive what is the same for all variables. `t` counts updates from 1, as in the papers."""

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The change of parameter `p` for gradient `g` (decay included), and the new slots."""


def decoupled(u: Tensor, p: Tensor, s: Scalars) -> Tensor:
    """The change of `p` along direction `u` with decoupled weight decay (Loshchilov & Hutter 2019,
    Algorithm 2, line 12): -rate u - decay p."""
    return -s.rate * u if s.decay is None else -(s.rate * u + s.decay * p)


def complement_of_power(one_minus_beta: Scalar, t: Scalar) -> Scalar:
    """1 - beta^t, without the cancellation of computing it as written."""
    return -ops.expm1(t * ops.log1p(-one_minus_beta))

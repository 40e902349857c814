"""What an update rule is: declared state, scalars prepared once per update, one pure function per variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from keras import ops

from capibara_keras import backend, errors
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = [
    "Rule",
    "Slot",
    "UpdateRule",
    "bias_correction",
    "complement_of_power",
    "decay_per_rate",
    "decoupled",
    "norm",
    "root_mean_square",
    "trust_ratio",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """State that a rule keeps for each variable.

    Args:
        name: part of the state variable's name and of its key in checkpoints.
        shape: `None` for the parameter's own shape.
        dtype: `None` for the parameter's dtype, but at least float32.
        initializer: a number, or the name of a Keras initializer.
        moment: False for what may not be kept in fewer bits, such as weights.

    >>> Slot("m").initializer
    'zeros'
    """

    name: str
    shape: Shape | None = None
    dtype: str | None = None
    initializer: str | float = "zeros"
    moment: bool = True


class UpdateRule(Protocol):
    """An optimization algorithm as data and pure functions.

    Attributes:
        family: rules of one family keep the same state, and can load each other's.
        default_learning_rate: the rate where the user names none.
        default_weight_decay: the decay of the class of that name where the user names none.
        paper: where the algorithm comes from.
        use: when to choose it, in a sentence.
        gathered: slots that are scalars, which `prepare` finds in `s` as vectors over all variables of the group.
        companion: a pattern of paths, and the rule for the variables that it matches; `None` for none.
        two_points: whether the point to be evaluated is another than that in which gradients are taken.

    A rule that keeps a mean of earlier gradients may say so with a method `average(slots, s)` that returns it:
    monitoring measures the noise of the gradient against it.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def family(self) -> str: ...

    @property
    def default_learning_rate(self) -> float: ...

    @property
    def paper(self) -> str: ...

    @property
    def use(self) -> str: ...

    @property
    def gathered(self) -> tuple[str, ...]: ...

    @property
    def companion(self) -> tuple[str, UpdateRule] | None: ...

    @property
    def two_points(self) -> bool: ...

    @property
    def innermost(self) -> UpdateRule:
        """The algorithm, out of its modifiers."""

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        """State for a variable of this shape and dtype, in the order in which `update` takes and returns it."""

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The numbers that can change without a new trace: every option that is a float. A beta is kept as
        1 - beta: in float32, 1 - 0.999 would be wrong by 5e-5."""

    @property
    def neutral(self) -> Mapping[str, float]:
        """The value of each scalar that makes `update` return a zero delta and the slots unchanged, bit for
        bit, for any finite gradient. This is how a non-finite update is skipped: scalars cost nothing, a
        selection between old and new tensors costs a pass over memory."""

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        """Derive what is the same for all variables. `t` counts updates from 1, as in the papers."""

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The change of parameter `p` for gradient `g` (decay included), and the new slots."""

    def evaluation(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        """The point to be evaluated, from the one in which gradients are taken."""

    def training(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        """The inverse of `evaluation`."""


class Rule:
    """What rules have in common: a subclass names its state and its numbers, and this checks and packs them.

    Attributes:
        state: names of slots of the parameter's shape.
        betas: options that are decay rates, in [0, 1). `update` finds `s.beta` and `s.one_minus_beta`.
        numbers: options that are other numbers that may change; `update` finds them under their names.

    >>> from capibara_keras.rules import Lion
    >>> Lion().hyperparameters == {"one_minus_beta_1": 1 - 0.9, "one_minus_beta_2": 1 - 0.99}
    True
    """

    state: ClassVar[tuple[str, ...]] = ()
    betas: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[tuple[str, ...]] = ()
    gathered: ClassVar[tuple[str, ...]] = ()
    two_points: ClassVar[bool] = False

    @property
    def innermost(self) -> UpdateRule:
        return cast(UpdateRule, self)

    def __post_init__(self) -> None:
        for name in self.betas:
            errors.number(name, getattr(self, name), 0, 1, open_high=True)
        if "epsilon" in self.numbers:  # smaller is zero in float32: 0/0 where no gradient came
            errors.number("epsilon", getattr(self, "epsilon"), 1e-30)  # noqa: B009

    @property
    def companion(self) -> tuple[str, UpdateRule] | None:
        return None

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return tuple(Slot(name) for name in self.state)

    @property
    def hyperparameters(self) -> dict[str, float]:
        packed = {f"one_minus_{name}": 1 - getattr(self, name) for name in self.betas}
        return packed | {name: getattr(self, name) for name in self.numbers}

    @property
    def neutral(self) -> dict[str, float]:
        """A beta of 1 keeps a moment as it is. `fresh` is for what a gradient enters without a beta."""
        frozen: dict[str, float] = {"rate": 0, "decay": 0, "fresh": 0}
        for name in self.betas:
            frozen |= {name: 1, f"one_minus_{name}": 0}
        return frozen

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        betas = {name: 1 - getattr(s, f"one_minus_{name}") for name in self.betas}
        return s.replace(fresh=ops.ones_like(t), **betas)

    def name_for(self, shape: Shape) -> str:
        """What a variable of this shape gets, for people to read: some rules have another for vectors."""
        return type(self).__name__

    def evaluation(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        return p

    def training(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        return p


def decoupled(u: Tensor, p: Tensor, s: Scalars) -> Tensor:
    """The change of `p` along direction `u` with decoupled weight decay (Loshchilov & Hutter 2019,
    Algorithm 2, line 12): -rate u - decay p."""
    return -s.rate * u if s.decay is None else -(s.rate * u + s.decay * p)


def decay_per_rate(s: Scalars) -> Scalar:
    """The decay of a weight per unit of the rate, for rules whose decay stands inside of something; 0 at rate 0."""
    positive = s.rate > 0
    return ops.where(positive, s.decay / ops.where(positive, s.rate, ops.ones_like(s.rate)), ops.zeros_like(s.rate))


def complement_of_power(one_minus_beta: Scalar, t: Scalar) -> Scalar:
    """1 - beta^t, without the cancellation of computing it as written."""
    return -ops.expm1(t * ops.log1p(-one_minus_beta))


def bias_correction(one_minus_beta: Scalar, t: Scalar) -> Scalar:
    """1 / (1 - beta^t): a factor, so that a division is spent once per update and not once per entry."""
    return 1 / complement_of_power(one_minus_beta, t)


def norm(x: Tensor) -> Scalar:
    """The L2 norm over all entries."""
    return ops.sqrt(backend.sum_of_squares(x))


def root_mean_square(x: Tensor) -> Scalar:
    """The square root of the mean square."""
    size = 1
    for n in x.shape:
        size *= n
    return ops.sqrt(backend.sum_of_squares(x) / max(size, 1))


def trust_ratio(p: Tensor, u: Tensor, coefficient: Scalar = 1.0) -> Scalar:
    """coefficient |p| / |u|, or 1 where one of the norms is 0."""
    of_p, of_u = norm(p), norm(u)
    both = ops.logical_and(of_p > 0, of_u > 0)
    one = ops.ones_like(of_p)
    return ops.where(both, coefficient * of_p / ops.where(both, of_u, one), one)

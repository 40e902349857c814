"""Gradient clipping as pure functions of the gradients that were summed over replicas and averaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from keras import ops

from capibara_keras import errors
from capibara_keras.history import percentile
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = [
    "AdaptiveClip",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "ClipPolicy",
    "Limits",
    "NoClip",
    "Norms",
    "UnitwiseClip",
]


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


def _no() -> Scalar:
    return ops.zeros((), "bool")


class _Memoryless:
    history_length: ClassVar[int] = 0
    per_parameter: ClassVar[bool] = False


class _ByFactor:
    """The limit is a factor ≤ 1."""

    by_norm: ClassVar[bool] = True

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        return g * limit, _no()


@dataclass(frozen=True)
class NoClip(_Memoryless):
    """Gradients pass unchanged.

    >>> NoClip().hyperparameters
    {}
    """

    by_norm: ClassVar[bool] = True

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {}

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(ops.ones_like(x.together), _no(), ops.full_like(x.together, float("nan")))

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        return g, _no()


@dataclass(frozen=True)
class _Limited(_Memoryless):
    limit: float

    def __post_init__(self) -> None:
        errors.number("clip_value", self.limit, 0, open_low=True)

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {"clip_limit": self.limit}


@dataclass(frozen=True)
class ClipByGlobalNorm(_ByFactor, _Limited):
    """One factor for all variables (Pascanu, Mikolov & Bengio 2013, Algorithm 1).

        g = g min(1, limit / ||g||),  ||g|| over all variables together

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByGlobalNorm(5.0).hyperparameters
    {'clip_limit': 5.0}
    """

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(_factor(x.together, s.clip_limit), x.together > s.clip_limit, s.clip_limit)


@dataclass(frozen=True)
class ClipByNorm(_ByFactor, _Limited):
    """A factor for each variable by itself: g_i = g_i min(1, limit / ||g_i||).

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByNorm(1.0).limit
    1.0
    """

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(_factor(x.each, s.clip_limit), ops.any(x.each > s.clip_limit), s.clip_limit)


@dataclass(frozen=True)
class ClipByValue(_Limited):
    """Each entry to [-limit, limit].

    Args:
        limit: > 0, in units of the gradient.

    >>> ClipByValue(0.5).limit
    0.5
    """

    by_norm: ClassVar[bool] = False

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(s.clip_limit, _no(), s.clip_limit)

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        return ops.clip(g, -limit, limit), ops.max(ops.abs(g)) > limit


@dataclass(frozen=True)
class AdaptiveClip(_ByFactor):
    """The limit is a percentile of recent norms (Seetharaman et al. 2020, "AutoClip", Algorithm 1).

        limit_t = percentile of ||g_1||, …, ||g_t|| (the last `history_length`, unclipped, finite),
                  within [min_clip_value, max_clip_value], at most `clip_value`

    Percentile 10 clips about 90 % of the updates: the paper's choice, and by design.

    Args:
        percentile: 0 to 100, with linear interpolation.
        history_length: norms remembered, ≥ 2.
        min_clip_value, max_clip_value: bounds of the limit, in units of the gradient; `None` for none.
        clip_value: a fixed limit beside it; the smaller wins.
        per_parameter: a limit and a history for each variable.

    >>> AdaptiveClip(percentile=10, history_length=100).hyperparameters["clip_percentile"]
    10.0
    """

    percentile: float = 10.0
    history_length: int = 1000
    min_clip_value: float | None = None
    max_clip_value: float | None = None
    clip_value: float | None = None
    per_parameter: bool = False

    def __post_init__(self) -> None:
        errors.number("percentile", self.percentile, 0, 100)
        object.__setattr__(self, "history_length", errors.integer("history_length", self.history_length, 2))
        for name in ("min_clip_value", "max_clip_value", "clip_value"):
            if getattr(self, name) is not None:
                errors.number(name, getattr(self, name), 0, open_low=name != "min_clip_value")
        low, high = self.min_clip_value, self.max_clip_value
        if low is not None and high is not None and low > high:
            raise errors.ConfigError(f"min_clip_value={low!r} is above max_clip_value={high!r}")
        errors.boolean("per_parameter_clipping", self.per_parameter)

    @property
    def hyperparameters(self) -> dict[str, float]:
        bounds = {
            "clip_minimum": self.min_clip_value,
            "clip_maximum": self.max_clip_value,
            "clip_limit": self.clip_value,
        }
        return {"clip_percentile": float(self.percentile)} | {k: v for k, v in bounds.items() if v is not None}

    def limits(self, x: Norms, s: Scalars) -> Limits:
        limits = percentile(x.history, s.clip_percentile)
        if hasattr(s, "clip_minimum"):
            limits = ops.maximum(limits, s.clip_minimum)
        if hasattr(s, "clip_maximum"):
            limits = ops.minimum(limits, s.clip_maximum)
        if hasattr(s, "clip_limit"):
            limits = ops.minimum(limits, s.clip_limit)
        if self.per_parameter:
            return Limits(_factor(x.each, limits), ops.any(x.each > limits), ops.min(limits))
        limit = limits[0]
        return Limits(_factor(x.together, limit), x.together > limit, limit)


@dataclass(frozen=True)
class UnitwiseClip(_Memoryless):
    """Adaptive gradient clipping: a unit's gradient is small beside its weights (Brock et al. 2021, Equation 3).

        g_i = g_i min(1, clip_coeff max(||w_i||, 1e-3) / ||g_i||),  i an output unit

    Args:
        clip_coeff: > 0, relative; the paper's range is 0.01 to 0.16.
        include_output: clip the output layer too; the paper leaves it out.

    >>> UnitwiseClip().hyperparameters
    {'clip_coeff': 0.01}
    """

    clip_coeff: float = 0.01
    include_output: bool = False

    by_norm: ClassVar[bool] = False
    SMALLEST_NORM: ClassVar[float] = 1e-3

    def __post_init__(self) -> None:
        errors.number("clip_coeff", self.clip_coeff, 0, open_low=True)
        errors.boolean("clip_output_layer", self.include_output)

    @property
    def hyperparameters(self) -> dict[str, float]:
        return {"clip_coeff": self.clip_coeff}

    def limits(self, x: Norms, s: Scalars) -> Limits:
        return Limits(s.clip_coeff, _no(), ops.full_like(x.together, float("nan")))

    def clip(self, g: Tensor, p: Tensor, limit: Scalar, units: tuple[int, ...] | None) -> tuple[Tensor, Scalar]:
        if units is None:
            return g, _no()
        size = ops.sqrt(ops.sum(ops.square(g), units, keepdims=True))
        weight = ops.sqrt(ops.sum(ops.square(ops.cast(p, g.dtype)), units, keepdims=True))
        limit = limit * ops.maximum(weight, self.SMALLEST_NORM)
        return g * (limit / ops.maximum(size, limit)), ops.any(size > limit)


def _factor(norm: Tensor, limit: Tensor) -> Tensor:
    """min(1, limit / norm), also where both are 0."""
    return ops.where(norm > limit, limit / ops.maximum(norm, 1e-30), ops.ones_like(norm))


METHODS = ("norm", "value", "adaptive", "agc")


def from_options(options: Mapping[str, Any]) -> ClipPolicy:
    """The policy that `configure_gradient_clipping`'s options describe; those without effect are ignored.

    Args:
        options: `clip_method`, `clip_value`, `adaptive_clipping` (`enable`, `percentile`, `history_length`,
            `min_clip_value`, `max_clip_value`), `per_parameter_clipping`, `clip_coeff`, `clip_output_layer`.

    >>> from_options({"clip_method": "value", "clip_value": 0.5})
    ClipByValue(limit=0.5)
    """
    given = {name: value for name, value in options.items() if value is not None}
    allowed = (
        "clip_method",
        "clip_value",
        "adaptive_clipping",
        "per_parameter_clipping",
        "clip_coeff",
        "clip_output_layer",
    )
    for name in given:
        if name not in allowed:
            raise errors.unknown("clipping option", name, allowed)
    adaptive = given.get("adaptive_clipping", {})
    if not isinstance(adaptive, Mapping):
        raise errors.ConfigError(f"adaptive_clipping: expected a dictionary of its options, received {adaptive!r}")
    adaptive = dict(adaptive)
    for name in adaptive:
        errors.choice(
            "adaptive_clipping", name, ("enable", "percentile", "history_length", "min_clip_value", "max_clip_value")
        )
    method = errors.choice("clip_method", given.get("clip_method", "norm"), METHODS)
    each = errors.boolean("per_parameter_clipping", given.get("per_parameter_clipping", False))
    enable = errors.boolean("adaptive_clipping.enable", adaptive.pop("enable", method == "adaptive"))
    # Both are made, so that bad numbers are refused also where they would have no effect.
    percentile_clip = AdaptiveClip(**adaptive, clip_value=given.get("clip_value"), per_parameter=each)
    unitwise_clip = UnitwiseClip(given.get("clip_coeff", 0.01), given.get("clip_output_layer", False))
    if enable:
        return percentile_clip
    if method == "agc":
        return unitwise_clip
    if "clip_value" not in given:
        if method == "adaptive":
            raise errors.ConfigError("clip_method='adaptive' contradicts adaptive_clipping.enable=False")
        if "clip_method" in given:
            raise errors.ConfigError(f"clip_method={method!r} needs clip_value, a number > 0")
        return NoClip()
    if method == "value":
        return ClipByValue(given["clip_value"])
    return (ClipByNorm if each else ClipByGlobalNorm)(given["clip_value"])


def to_options(policy: ClipPolicy) -> dict[str, Any]:
    """Options from which `from_options` makes the policy again.

    >>> from_options(to_options(ClipByNorm(2.0)))
    ClipByNorm(limit=2.0)
    """
    if isinstance(policy, UnitwiseClip):
        return {"clip_method": "agc", "clip_coeff": policy.clip_coeff, "clip_output_layer": policy.include_output}
    if isinstance(policy, AdaptiveClip):
        names = ("percentile", "history_length", "min_clip_value", "max_clip_value")
        adaptive = {name: getattr(policy, name) for name in names if getattr(policy, name) is not None}
        options = {"clip_method": "adaptive", "adaptive_clipping": adaptive, "clip_value": policy.clip_value}
        return options | {"per_parameter_clipping": policy.per_parameter}
    if isinstance(policy, _Limited):
        method = "value" if isinstance(policy, ClipByValue) else "norm"
        each = isinstance(policy, ClipByNorm)
        return {"clip_method": method, "clip_value": policy.limit, "per_parameter_clipping": each}
    return {}

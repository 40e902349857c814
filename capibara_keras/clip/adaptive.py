"""A limit that follows the recent norms."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from capibara_keras import errors
from capibara_keras.clip.base import ByFactor, Limits, Norms, factor
from capibara_keras.history import percentile
from capibara_keras.types import Scalars

__all__ = ["AdaptiveClip"]


@dataclass(frozen=True)
class AdaptiveClip(ByFactor):
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
            return Limits(factor(x.each, limits), ops.any(x.each > limits), ops.min(limits))
        limit = limits[0]
        return Limits(factor(x.together, limit), x.together > limit, limit)

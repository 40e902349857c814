"""Clip policies from the options of `configure_gradient_clipping`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capibara_keras import errors
from capibara_keras.clip import (
    AdaptiveClip,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    ClipPolicy,
    Limited,
    NoClip,
    UnitwiseClip,
)

__all__ = ["clip_of", "clip_options_of"]

METHODS = ("norm", "value", "adaptive", "agc")
"""What `clip_method` may be."""

ADAPTIVE = ("percentile", "history_length", "min_clip_value", "max_clip_value")
"""Options of `adaptive_clipping`, beside `enable`."""


def clip_of(options: Mapping[str, Any]) -> ClipPolicy:
    """The policy that `configure_gradient_clipping`'s options describe; those without effect are ignored.

    Args:
        options: `clip_method`, `clip_value`, `adaptive_clipping` (`enable` and those of `ADAPTIVE`),
            `per_parameter_clipping`, `clip_coeff`, `clip_output_layer`.

    >>> clip_of({"clip_method": "value", "clip_value": 0.5})
    ClipByValue(limit=0.5)
    """
    given = {name: value for name, value in options.items() if value is not None}
    adaptive = given.get("adaptive_clipping", {})
    if not isinstance(adaptive, Mapping):
        raise errors.ConfigError(f"adaptive_clipping: expected a dictionary of its options, received {adaptive!r}")
    adaptive = {errors.choice("adaptive_clipping", name, ("enable", *ADAPTIVE)): x for name, x in adaptive.items()}
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


def clip_options_of(policy: ClipPolicy) -> dict[str, Any]:
    """Options from which `clip_of` makes the policy again.

    >>> clip_of(clip_options_of(ClipByNorm(2.0)))
    ClipByNorm(limit=2.0)
    """
    if isinstance(policy, UnitwiseClip):
        return {"clip_method": "agc", "clip_coeff": policy.clip_coeff, "clip_output_layer": policy.include_output}
    if isinstance(policy, AdaptiveClip):
        adaptive = {name: getattr(policy, name) for name in ADAPTIVE if getattr(policy, name) is not None}
        options = {"clip_method": "adaptive", "adaptive_clipping": adaptive, "clip_value": policy.clip_value}
        return options | {"per_parameter_clipping": policy.per_parameter}
    if isinstance(policy, Limited):
        method = "value" if isinstance(policy, ClipByValue) else "norm"
        each = isinstance(policy, ClipByNorm)
        return {"clip_method": method, "clip_value": policy.limit, "per_parameter_clipping": each}
    return {}

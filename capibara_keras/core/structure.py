"""What a compiled step depends on, of a configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from capibara_keras import config
from capibara_keras.config import OptimizerConfig
from capibara_keras.rules import UpdateRule, Wrapper

__all__ = ["structure"]


def structure(configuration: OptimizerConfig) -> Any:
    """What a compiled step depends on: all but the numbers in the packed hyperparameters."""
    parts = [_form(p.rule) for p in configuration.parts]
    clips = [(type(p.clip), getattr(p.clip, "history_length", 0)) for p in configuration.parts]
    packed = {
        "ema_momentum",
        "lookahead_alpha",
        "weight_decay",
        "gradient_accumulation_steps",
        "clip_method",
        "clip_value",
        "clip_coeff",
        "adaptive_clipping",
        "skip_spikes",
        *config.CLIPS,
    }
    packed |= set(dataclasses.asdict(configuration.rule))
    others = {k: v for k, v in configuration.to_options().items() if k not in packed}
    del others["learning_rate"]
    return parts, clips, configuration.packed_names, configuration.accumulates, others


def _form(rule: UpdateRule) -> Any:
    """A rule without its numbers."""
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    inner = _form(values.pop("rule")) if isinstance(rule, Wrapper) else None
    return type(rule), inner, {k: v for k, v in values.items() if not isinstance(v, float)}

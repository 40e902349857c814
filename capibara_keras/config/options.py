"""Names of options, other spellings, and which methods they belong to."""

from __future__ import annotations

from capibara_keras.clip import ClipByGlobalNorm, ClipByNorm, ClipByValue

__all__ = ["ACCUMULATION", "ALIASES", "CLIPPING", "CLIPS", "MODIFIERS", "VECTORS"]

ALIASES = {
    "beta1": "beta_1",
    "beta2": "beta_2",
    "eps": "epsilon",
    "lr": "learning_rate",
    "gradient_clip_norm": "global_clipnorm",
    "accumulation_steps": "gradient_accumulation_steps",
    "scale_loss": "loss_divided",
}
"""Other spellings -> Keras spelling, or where Keras has a method of that name, another. The schedules' own are in
`capibara_keras.schedules`."""


CLIPS: dict[str, type] = {"clipnorm": ClipByNorm, "clipvalue": ClipByValue, "global_clipnorm": ClipByGlobalNorm}
"""Keras' options -> clip policies."""


CLIPPING = (
    "clip_method",
    "clip_value",
    "adaptive_clipping",
    "per_parameter_clipping",
    "clip_coeff",
    "clip_output_layer",
)
"""Options of `configure_gradient_clipping`."""


ACCUMULATION = (
    "gradient_accumulation_steps",
    "normalize_gradients",
    "loss_divided",
    "defer_clip_until_accumulation",
    "sync_batchnorm",
    "remainder",
    "nonfinite",
)
"""Options of `configure_gradient_accumulation`."""


MODIFIERS = (
    "state_precision",
    "kahan_summation",
    "cautious",
    "gradient_centralization",
    "lookahead_steps",
    "lookahead_alpha",
)
"""Options of `rules.modified`."""


VECTORS = "rank<=1"
"""In `weight_decay_exclude`: all vectors and scalars, whatever their names: biases, scales and offsets of norms."""

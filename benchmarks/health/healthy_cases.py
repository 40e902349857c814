"""The table of healthy trainings."""

from __future__ import annotations

from benchmarks.health import healthy
from benchmarks.health.case import ALL, DENSE, REGRESSION, TRANSFORMERS, Case, named

__all__ = ["HEALTHY"]

SGD = named(
    "digits diabetes images cancer friedman waves moons swiss wine shapes codes quantiles surface iris textures spectra"
)
RESTARTS = named("digits periodic waves ratings moons shapes brackets quantiles textures decay")
FROZEN = named("images digits waves friedman wine shapes codes iris textures spectra")
TINY = named("digits diabetes topics cancer friedman counting moons swiss wine tags quantiles surface iris letters")
CONVERGED = named("digits diabetes cancer waves moons wine quantiles iris")
ADAPTIVE = named("digits friedman swiss tags surface letters")
ZERO_OUTPUT = named("digits images cancer waves moons shapes tags quantiles textures letters")
LARGE = named("digits waves moons shapes quantiles textures")
SMOOTHED = named("digits waves moons shapes brackets quantiles textures")
VALIDATED = named("digits cancer wine shapes iris textures")
STEPPED = named("periodic waves brackets codes tags decay spectra letters")
WHOLE = named("diabetes digits moons codes quantiles spectra")
SIGNS = named("digits counting swiss shapes tags surface textures letters")

HEALTHY = (
    Case("adam", ALL, healthy.adam),
    Case("sgd", SGD, healthy.sgd),
    Case("adamw_cosine", tuple(name for name in ALL if name != "parity"), healthy.adamw_cosine),
    Case("restarts", RESTARTS, healthy.restarts),
    Case("raw_targets", REGRESSION, healthy.raw_targets),
    Case("frozen", FROZEN, healthy.frozen),
    Case("tiny_batches", TINY, healthy.tiny_batches),
    Case("converged", CONVERGED, healthy.converged),
    Case("adaptive_clipping", ADAPTIVE, healthy.adaptive_clipping),
    Case("dropout", DENSE, healthy.dropout),
    Case("zero_output", ZERO_OUTPUT, healthy.zero_output),
    Case("accumulated", LARGE, healthy.accumulated),
    Case("warm_transformer", TRANSFORMERS, healthy.warm_transformer),
    Case("negative_loss", REGRESSION, healthy.negative_loss),
    Case("clipped", LARGE, healthy.clipped),
    Case("smoothed_labels", SMOOTHED, healthy.smoothed_labels),
    Case("weak_signal", named("friedman swiss surface"), healthy.weak_signal),
    Case("rare_class", named("cancer moons quantiles"), healthy.rare_class),
    Case("few_validated", VALIDATED, healthy.few_validated),
    Case("steps_of_rate", STEPPED, healthy.steps_of_rate),
    Case("whole_data", WHOLE, healthy.whole_data),
    Case("signs", SIGNS, healthy.signs),
    Case("scaled_loss", DENSE, healthy.scaled_loss),
)
"""Nothing should be said of them."""

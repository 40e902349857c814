"""The table of sick trainings, with the alerts that each deserves."""

from __future__ import annotations

from benchmarks.health import sick
from benchmarks.health.case import BOTH, DENSE, RECURRENT, REGRESSION, TRANSFORMERS, Case, named

__all__ = ["SICK"]

FIRST = ("hidden_0", "conv_0", "recurrent")
"""Names of first layers."""

NONFINITE = ("nonfinite_loss", "nonfinite_gradient", "nonfinite_parameter")
EXPLODED = ("gradient_explosion", "gradient_huge", *NONFINITE)
TOO_HIGH = ("loss_divergence", "update_ratio_high", *EXPLODED)
STUCK = ("slow_progress", "no_learning")
ROUGH = ("loss_spike", "loss_oscillation", "dead_units", "gradient_vanishing", "gradient_explosion", "no_learning")
"""Alerts that mean much the same, or come along."""

HIGH = named(
    "digits adding cancer friedman sine moons swiss shapes brackets codes quantiles surface textures decay spectra"
)
HIGH_SGD = named("digits cancer waves moons codes quantiles spectra")
LOW = named(
    "digits diabetes cancer friedman waves moons swiss wine shapes brackets quantiles surface iris textures decay"
)
NAN_BATCH = named("digits images cancer sine moons shapes codes brackets quantiles textures spectra decay")
NAN_TARGET = (*REGRESSION, *named("adding ratings codes spectra"))
SPIKE = named("digits images cancer waves moons wine shapes codes quantiles iris textures spectra")
OVERFITTING = (*named("digits cancer wine"), *REGRESSION, "iris")
TIGHT = named("digits cancer waves moons shapes brackets quantiles textures decay")
DECAYED = named("digits cancer waves moons wine shapes quantiles iris textures")
BAD_INIT = named("digits images cancer waves moons wine brackets quantiles iris decay")
SHUFFLED = named("images digits waves counting moons shapes brackets quantiles textures decay")
EPSILON = named("digits adding cancer ratings moons brackets codes quantiles decay spectra")
DISCONNECTED = named("digits diabetes cancer moons swiss quantiles surface")
OVER = named("digits sine moons brackets quantiles decay")

SICK = (
    Case("rate_too_high", HIGH, sick.rate_too_high, TOO_HIGH, (*ROUGH, "warmup_missing")),
    Case("rate_too_high_sgd", HIGH_SGD, sick.rate_too_high_sgd, TOO_HIGH, ROUGH),
    Case("rate_too_low", LOW, sick.rate_too_low, STUCK),
    Case(
        "exploding_rnn",
        RECURRENT,
        sick.exploding_rnn,
        EXPLODED,
        ("loss_divergence", "bad_init", "update_ratio_high", *ROUGH),
    ),
    Case("vanishing_sigmoid", BOTH, sick.vanishing_sigmoid, ("gradient_vanishing",), STUCK, ("hidden_0",)),
    Case("dying_relu", BOTH, sick.dying_relu, ("dead_units",), STUCK, ("hidden_0",)),
    Case("nan_batch", NAN_BATCH, sick.nan_batch, NONFINITE[:2], layer=("loss", *FIRST)),
    Case("nan_target", NAN_TARGET, sick.nan_target, ("nonfinite_loss",), layer=("loss",)),
    Case("bad_gradient", BOTH, sick.bad_gradient, ("nonfinite_gradient",), layer=("hidden_0",)),
    Case("spike", SPIKE, sick.spike, ("loss_spike", "gradient_explosion")),
    Case("oscillation", REGRESSION, sick.oscillation, ("loss_oscillation",), (*TOO_HIGH, *ROUGH)),
    Case("overfitting", OVERFITTING, sick.overfitting, ("overfitting",)),
    Case("clipping_tight", TIGHT, sick.clipping_tight, ("clipping_saturated",), STUCK),
    Case("decay_strong", DECAYED, sick.decay_strong, ("weight_decay_dominant",), STUCK),
    Case("bad_init", BAD_INIT, sick.bad_init, ("bad_init",), (*ROUGH, "update_ratio_high")),
    Case("symmetric", BOTH, sick.symmetric, ("symmetric_units",), STUCK, ("hidden",)),
    Case("shuffled", SHUFFLED, sick.shuffled, ("no_learning",), ("overfitting",)),
    Case("no_warmup", TRANSFORMERS, sick.no_warmup, ("warmup_missing",), (*TOO_HIGH, *ROUGH)),
    Case("huge_epsilon", EPSILON, sick.huge_epsilon, ("adam_epsilon_dominant",), STUCK),
    Case("disconnected", DISCONNECTED, sick.disconnected, ("no_gradient",), layer=("hidden_0",)),
    Case("underflow", DENSE, sick.underflow, ("fp16_underflow",), (*STUCK, "dead_units", "adam_epsilon_dominant")),
    Case("schedule_over", OVER, sick.schedule_over, ("lr_zero",)),
)
"""One of the alerts that are expected must be said of each."""

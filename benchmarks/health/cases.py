"""The table of trainings: what is made of which tasks, and the alerts that it deserves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.health import healthy, sick
from benchmarks.health.tasks import TASKS, Task
from benchmarks.health.training import Training

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """A kind of training.

    Args:
        name: unique.
        tasks: names of tasks that it is made of.
        make: (task, seed) -> `Training`.
        expected: alerts of which at least one must come; none for a healthy training.
        allowed: alerts that are true of it as well, and count neither way.
        layer: what the expected alert may name, as parts of names; empty for anything.
    """

    name: str
    tasks: tuple[str, ...]
    make: Callable[[Task, int], Training]
    expected: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing should be said."""
        return not self.expected


ALL = tuple(TASKS)
FIRST = ("hidden_0", "conv_0", "recurrent")
DENSE = ("digits", "cancer", "moons", "quantiles")
REGRESSION = ("diabetes", "friedman", "swiss", "surface")
RECURRENT = ("adding", "sine", "brackets", "decay")
TRANSFORMERS = ("periodic", "counting", "shapes", "letters")

NONFINITE = ("nonfinite_loss", "nonfinite_gradient", "nonfinite_parameter")
TOO_HIGH = ("loss_divergence", "update_ratio_high", "gradient_explosion", "gradient_huge", *NONFINITE)
STUCK = ("slow_progress", "no_learning")
ROUGH = ("loss_spike", "loss_oscillation", "dead_units", "gradient_vanishing", "gradient_explosion", "no_learning")

HEALTHY = (
    Case("adam", ALL, healthy.adam),
    Case(
        "sgd",
        (
            "digits",
            "diabetes",
            "images",
            "cancer",
            "friedman",
            "waves",
            "moons",
            "swiss",
            "wine",
            "shapes",
            "codes",
            "quantiles",
            "surface",
            "iris",
            "textures",
            "spectra",
        ),
        healthy.sgd,
    ),
    Case("adamw_cosine", tuple(name for name in ALL if name != "parity"), healthy.adamw_cosine),
    Case(
        "restarts",
        ("digits", "periodic", "waves", "ratings", "moons", "shapes", "brackets", "quantiles", "textures", "decay"),
        healthy.restarts,
    ),
    Case("raw_targets", REGRESSION, healthy.raw_targets),
    Case(
        "frozen",
        ("images", "digits", "waves", "friedman", "wine", "shapes", "codes", "iris", "textures", "spectra"),
        healthy.frozen,
    ),
    Case(
        "tiny_batches",
        (
            "digits",
            "diabetes",
            "topics",
            "cancer",
            "friedman",
            "counting",
            "moons",
            "swiss",
            "wine",
            "tags",
            "quantiles",
            "surface",
            "iris",
            "letters",
        ),
        healthy.tiny_batches,
    ),
    Case(
        "converged", ("digits", "diabetes", "cancer", "waves", "moons", "wine", "quantiles", "iris"), healthy.converged
    ),
    Case("adaptive_clipping", ("digits", "friedman", "swiss", "tags", "surface", "letters"), healthy.adaptive_clipping),
    Case("dropout", DENSE, healthy.dropout),
    Case(
        "zero_output",
        ("digits", "images", "cancer", "waves", "moons", "shapes", "tags", "quantiles", "textures", "letters"),
        healthy.zero_output,
    ),
    Case("accumulated", ("digits", "waves", "moons", "shapes", "quantiles", "textures"), healthy.accumulated),
    Case("warm_transformer", TRANSFORMERS, healthy.warm_transformer),
    Case("negative_loss", REGRESSION, healthy.negative_loss),
    Case("clipped", ("digits", "waves", "moons", "shapes", "quantiles", "textures"), healthy.clipped),
    Case(
        "smoothed_labels",
        ("digits", "waves", "moons", "shapes", "brackets", "quantiles", "textures"),
        healthy.smoothed_labels,
    ),
    Case("weak_signal", ("friedman", "swiss", "surface"), healthy.weak_signal),
    Case("rare_class", ("cancer", "moons", "quantiles"), healthy.rare_class),
    Case("few_validated", ("digits", "cancer", "wine", "shapes", "iris", "textures"), healthy.few_validated),
    Case(
        "steps_of_rate",
        ("periodic", "waves", "brackets", "codes", "tags", "decay", "spectra", "letters"),
        healthy.steps_of_rate,
    ),
    Case("whole_data", ("diabetes", "digits", "moons", "codes", "quantiles", "spectra"), healthy.whole_data),
    Case("signs", ("digits", "counting", "swiss", "shapes", "tags", "surface", "textures", "letters"), healthy.signs),
    Case("scaled_loss", ("digits", "cancer", "moons", "quantiles"), healthy.scaled_loss),
)

SICK = (
    Case(
        "rate_too_high",
        (
            "digits",
            "adding",
            "cancer",
            "friedman",
            "sine",
            "moons",
            "swiss",
            "shapes",
            "brackets",
            "codes",
            "quantiles",
            "surface",
            "textures",
            "decay",
            "spectra",
        ),
        sick.rate_too_high,
        TOO_HIGH,
        (*ROUGH, "warmup_missing"),
    ),
    Case(
        "rate_too_high_sgd",
        ("digits", "cancer", "waves", "moons", "codes", "quantiles", "spectra"),
        sick.rate_too_high_sgd,
        TOO_HIGH,
        ROUGH,
    ),
    Case(
        "rate_too_low",
        (
            "digits",
            "diabetes",
            "cancer",
            "friedman",
            "waves",
            "moons",
            "swiss",
            "wine",
            "shapes",
            "brackets",
            "quantiles",
            "surface",
            "iris",
            "textures",
            "decay",
        ),
        sick.rate_too_low,
        STUCK,
    ),
    Case(
        "exploding_rnn",
        RECURRENT,
        sick.exploding_rnn,
        ("gradient_explosion", "gradient_huge", *NONFINITE),
        ("loss_divergence", "bad_init", "update_ratio_high", *ROUGH),
    ),
    Case(
        "vanishing_sigmoid",
        (*DENSE, *REGRESSION),
        sick.vanishing_sigmoid,
        ("gradient_vanishing",),
        STUCK,
        ("hidden_0",),
    ),
    Case("dying_relu", (*DENSE, *REGRESSION), sick.dying_relu, ("dead_units",), STUCK, ("hidden_0",)),
    Case(
        "nan_batch",
        (
            "digits",
            "images",
            "cancer",
            "sine",
            "moons",
            "shapes",
            "codes",
            "brackets",
            "quantiles",
            "textures",
            "spectra",
            "decay",
        ),
        sick.nan_batch,
        NONFINITE[:2],
        layer=("loss", *FIRST),
    ),
    Case(
        "nan_target",
        (*REGRESSION, "adding", "ratings", "codes", "spectra"),
        sick.nan_target,
        ("nonfinite_loss",),
        layer=("loss",),
    ),
    Case("bad_gradient", (*DENSE, *REGRESSION), sick.bad_gradient, ("nonfinite_gradient",), layer=("hidden_0",)),
    Case(
        "spike",
        (
            "digits",
            "images",
            "cancer",
            "waves",
            "moons",
            "wine",
            "shapes",
            "codes",
            "quantiles",
            "iris",
            "textures",
            "spectra",
        ),
        sick.spike,
        ("loss_spike", "gradient_explosion"),
    ),
    Case("oscillation", REGRESSION, sick.oscillation, ("loss_oscillation",), (*TOO_HIGH, *ROUGH)),
    Case("overfitting", ("digits", "cancer", "wine", *REGRESSION, "iris"), sick.overfitting, ("overfitting",)),
    Case(
        "clipping_tight",
        ("digits", "cancer", "waves", "moons", "shapes", "brackets", "quantiles", "textures", "decay"),
        sick.clipping_tight,
        ("clipping_saturated",),
        STUCK,
    ),
    Case(
        "decay_strong",
        ("digits", "cancer", "waves", "moons", "wine", "shapes", "quantiles", "iris", "textures"),
        sick.decay_strong,
        ("weight_decay_dominant",),
        STUCK,
    ),
    Case(
        "bad_init",
        ("digits", "images", "cancer", "waves", "moons", "wine", "brackets", "quantiles", "iris", "decay"),
        sick.bad_init,
        ("bad_init",),
        (*ROUGH, "update_ratio_high"),
    ),
    Case("symmetric", (*DENSE, *REGRESSION), sick.symmetric, ("symmetric_units",), STUCK, ("hidden",)),
    Case(
        "shuffled",
        ("images", "digits", "waves", "counting", "moons", "shapes", "brackets", "quantiles", "textures", "decay"),
        sick.shuffled,
        ("no_learning",),
        ("overfitting",),
    ),
    Case("no_warmup", TRANSFORMERS, sick.no_warmup, ("warmup_missing",), (*TOO_HIGH, *ROUGH)),
    Case(
        "huge_epsilon",
        ("digits", "adding", "cancer", "ratings", "moons", "brackets", "codes", "quantiles", "decay", "spectra"),
        sick.huge_epsilon,
        ("adam_epsilon_dominant",),
        STUCK,
    ),
    Case(
        "disconnected",
        ("digits", "diabetes", "cancer", "moons", "swiss", "quantiles", "surface"),
        sick.disconnected,
        ("no_gradient",),
        layer=("hidden_0",),
    ),
    Case("underflow", DENSE, sick.underflow, ("fp16_underflow",), (*STUCK, "dead_units", "adam_epsilon_dominant")),
    Case(
        "schedule_over", ("digits", "sine", "moons", "brackets", "quantiles", "decay"), sick.schedule_over, ("lr_zero",)
    ),
)

CASES = (*HEALTHY, *SICK)
"""All kinds of trainings."""

"""An optimizer with everything open, for experiments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capibara_keras import errors
from capibara_keras.recipes.recipe import NO_DECAY, Choice, Recipe

__all__ = ["EXPERIMENTAL", "research"]

EXPERIMENTAL: dict[str, tuple[Any, ...]] = {
    "algorithm": ("soap", "adopt", "adan", "ademamix", "mars", "prodigy", "schedulefreeadamw", "schedulefreesgd"),
    "cautious": (True,),
    "weight_decay_mode": ("corrected",),
}
"""Option -> values that are new enough to ask for `experimental_features`."""


def research(
    experimental_features: bool = False,
    detailed_logging: bool = True,
    custom_schedulers: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Recipe:
    """AdamW with textbook settings, under `options`.

    Args:
        experimental_features: allow what `EXPERIMENTAL` lists in `options`.
        detailed_logging: measure all norms of each layer at every update, in rings that `recent_updates` reads.
        custom_schedulers: allow any function `step -> rate` as `learning_rate`.
        options: over the recipe's.

    Raises:
        ConfigError: an experimental option, or a function as rate, that was not allowed.

    >>> research(detailed_logging=True).options["statistics_every"]
    1
    """
    given = dict(options or {})
    flags = {
        "experimental_features": experimental_features,
        "detailed_logging": detailed_logging,
        "custom_schedulers": custom_schedulers,
    }
    for name, value in flags.items():
        errors.boolean(name, value)
    for name, values in EXPERIMENTAL.items():
        if not experimental_features and given.get(name) in values:
            raise errors.ConfigError(
                f"{name}={given[name]!r} is experimental; allow it with experimental_features=True"
            )
    choices = [
        Choice("algorithm", "adamw", "the baseline that papers compare with", "Loshchilov & Hutter 2019, Algorithm 2"),
        Choice("learning_rate", 1e-3, "the paper's", "Kingma & Ba 2015, Algorithm 1"),
        Choice("weight_decay", 0.01, "decoupled", "Loshchilov & Hutter 2019"),
        Choice("weight_decay_exclude", list(NO_DECAY), "decay is for matrices"),
    ]
    if detailed_logging:
        choices.append(Choice("statistics_every", 1, "detailed_logging: all norms of each layer, at every update"))
    advice = []
    if experimental_features:
        named = [f"{name}={value!r}" for name, values in EXPERIMENTAL.items() for value in values]
        advice.append(Choice("experimental_features", True, f"allowed: {', '.join(named)}"))
    if custom_schedulers:
        advice.append(Choice("custom_schedulers", True, "learning_rate may be any function of the step"))
    return Recipe("research", flags, tuple(choices), tuple(advice))

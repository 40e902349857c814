"""Options over a recipe's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from capibara_keras import config
from capibara_keras.config import OptimizerConfig
from capibara_keras.recipes.recipe import Recipe
from capibara_keras.rules import RULES
from capibara_keras.schedules import OPTION_NAMES, SchedulePlan

__all__ = ["decided", "over"]


def over(recipe: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's options with others over them, which win: also over those of the recipe that exclude them, and over
    those that another algorithm does not have.

    >>> over({"algorithm": "adamw", "epsilon": 1e-8, "clipnorm": 1.0}, {"algorithm": "lion", "clipvalue": 0.5})
    {'algorithm': 'lion', 'clipvalue': 0.5}
    """
    given = config.canonical(options)
    algorithm = given.get("algorithm", recipe["algorithm"])
    own = _fields(algorithm) | {"algorithm"}
    foreign = _fields(recipe["algorithm"]) - own
    ways = {*config.CLIPS, *config.CLIPPING}
    if ways & given.keys():
        foreign |= ways
    kept = {name: value for name, value in recipe.items() if name not in foreign}
    schedule = {name: kept.pop(name) for name in list(kept) if name in OPTION_NAMES}
    wanted = {name: given.pop(name) for name in list(given) if name in OPTION_NAMES}
    if schedule and not callable(given.get("learning_rate")):
        wanted = SchedulePlan.from_options(schedule).merged(wanted).to_options()
    return kept | wanted | given


def decided(configuration: OptimizerConfig, before: Recipe, now: Recipe) -> OptimizerConfig:
    """A configuration in which what the recipe chose before is what it chooses now; what was set since stays."""
    defaults = dataclasses.asdict(RULES[configuration.algorithm]())
    shared = _fields(now.options["algorithm"])
    current = {
        name: value
        for name, value in configuration.to_options().items()
        if name not in defaults or (name in shared and value != defaults[name])
    }
    old = {choice.option: choice.value for choice in before.choices}
    new = {c.option: c.value for c in now.choices if c.option not in current or current[c.option] == old[c.option]}
    return config.parse(current | new)


def _fields(algorithm: str) -> set[str]:
    return {field.name for field in dataclasses.fields(RULES[algorithm])} if algorithm in RULES else set()

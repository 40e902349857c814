"""All recipes by name, and what an optimizer that came from one says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from capibara_keras import errors
from capibara_keras.recipes.efficient import Variables, efficient
from capibara_keras.recipes.finetuning import finetuning
from capibara_keras.recipes.pretraining import pretraining
from capibara_keras.recipes.recipe import Choice, Recipe
from capibara_keras.recipes.research import research
from capibara_keras.schedules import OPTION_NAMES

__all__ = ["RECIPES", "explained", "remade"]

RECIPES: dict[str, Callable[..., Recipe]] = {
    "pretraining": pretraining,
    "finetuning": finetuning,
    "efficient": efficient,
    "research": research,
}
"""Name -> function of the recipe's arguments."""


def remade(recipe: Mapping[str, Any], variables: Variables | None = None) -> Recipe:
    """The recipe of a configuration's `recipe` entry.

    Raises:
        ConfigError: no such recipe, or not its arguments.

    >>> remade({"name": "pretraining", "model_size": "large"}).options["learning_rate"]
    0.00025
    """
    arguments = dict(recipe)
    name = errors.choice("recipe", arguments.pop("name", None), RECIPES)
    if name == "efficient":
        arguments["variables"] = variables
    try:
        bound = inspect.signature(RECIPES[name]).bind(**arguments)
    except TypeError as error:
        raise errors.ConfigError(f"recipe {name!r}: {error}") from error
    return RECIPES[name](*bound.args, **bound.kwargs)


def explained(options: Mapping[str, Any], recipe: Recipe | None, defaults: Mapping[str, Any]) -> list[Choice]:
    """Every option that is set, with its reason; not the recipe's advice.

    Args:
        options: of the configuration, flat.
        recipe: what they came from; `None` for no recipe.
        defaults: of the algorithm alone.
    """
    known = {choice.option: choice for choice in recipe.choices} if recipe else {}
    defaults = {**defaults, "use_scheduler": not OPTION_NAMES.isdisjoint(options)}
    found = []
    for name, value in options.items():
        if name == "recipe":
            continue
        choice = known.get(name)
        if choice is not None and _equal(choice.value, value):
            found.append(choice)
        elif choice is not None:
            found.append(Choice(name, value, f"given by you; the recipe has {choice.value!r}"))
        elif name in defaults and _equal(defaults[name], value):
            if value not in (None, False, [], {}):
                found.append(Choice(name, value, "default of the algorithm or of this package"))
        else:
            found.append(Choice(name, value, "given by you"))
    return found


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other) or (isinstance(one, (list, tuple)) and list(one) == list(other or ()))

"""Configurations for a purpose, each choice with its reason and its source."""

from capibara_keras.recipes.efficient import efficient
from capibara_keras.recipes.finetuning import finetuning, finetuning_options
from capibara_keras.recipes.overriding import decided, over
from capibara_keras.recipes.pretraining import large_model_options, pretraining
from capibara_keras.recipes.recipe import Choice, Recipe, text_of
from capibara_keras.recipes.research import research
from capibara_keras.recipes.table import RECIPES, explained, remade

__all__ = [
    "RECIPES",
    "Choice",
    "Recipe",
    "decided",
    "efficient",
    "explained",
    "finetuning",
    "finetuning_options",
    "large_model_options",
    "over",
    "pretraining",
    "remade",
    "research",
    "text_of",
]

"""Configurations for a purpose, each choice with its reason and its source.

>>> from capibara_keras import recipes
>>> sorted(recipes.RECIPES)
['efficient', 'finetuning', 'pretraining', 'research']
"""

from capibara_keras.recipes.efficient import efficient
from capibara_keras.recipes.finetuning import finetuning
from capibara_keras.recipes.pretraining import pretraining
from capibara_keras.recipes.recipe import Choice, Recipe
from capibara_keras.recipes.research import research
from capibara_keras.recipes.table import RECIPES

__all__ = ["RECIPES", "Choice", "Recipe", "efficient", "finetuning", "pretraining", "research"]

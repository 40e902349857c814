"""The configuration of an optimizer, and the one door through which dictionaries and aliases enter."""

from capibara_keras.config.checks import Rate, patterns, rate
from capibara_keras.config.configuration import OptimizerConfig, Part, idle_clipping
from capibara_keras.config.options import ACCUMULATION, ALIASES, CLIPPING, CLIPS, MODIFIERS, VECTORS
from capibara_keras.config.parsing import canonical, parse

__all__ = [
    "ACCUMULATION",
    "ALIASES",
    "CLIPPING",
    "CLIPS",
    "MODIFIERS",
    "OptimizerConfig",
    "Part",
    "Rate",
    "VECTORS",
    "canonical",
    "idle_clipping",
    "parse",
    "patterns",
    "rate",
]

"""What is asked about a variable of a model."""

from __future__ import annotations

import keras

from capibara_keras.rules import Slot, UpdateRule
from capibara_keras.types import Variable

__all__ = ["compute_dtype", "overwrites", "path_of", "scalar_dtype", "slots_of"]


def path_of(variable: Variable) -> str:
    """The path of a Keras variable, or the name of a native one."""
    return str(getattr(variable, "path", None) or variable.name.split(":")[0])


def slots_of(rule: UpdateRule, variable: Variable) -> tuple[Slot, ...]:
    """What a rule keeps for a variable."""
    return rule.slots_for(tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))


def compute_dtype(variable: Variable) -> str:
    """Of the update: the variable's dtype, but float32 for a half-precision one, where moments would stall."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float64" if dtype == "float64" else "float32"


def overwrites(variable: Variable) -> bool:
    """Whether the variable's gradient is its next value."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def scalar_dtype() -> str:
    """Of hyperparameters and statistics."""
    return "float64" if keras.config.floatx() == "float64" else "float32"

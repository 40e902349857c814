"""The loss of a model that knows nothing, where the compiled loss tells it."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["baseline_loss"]

SPREAD = ("sparse_categorical_crossentropy", "categorical_crossentropy")


def baseline_loss(model: Any) -> float | None:
    """ln C for a cross-entropy over C classes, ln 2 for a binary one, `None` for others: a regression's depends on the
    targets. Where classes are not equally frequent, the true one is lower.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(10)])
    >>> model.compile(loss="sparse_categorical_crossentropy")
    >>> round(baseline_loss(model), 3)
    2.303
    """
    loss, shape = model.loss, getattr(model, "output_shape", None)
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    if not isinstance(shape, tuple) or not shape or not isinstance(shape[-1], int):
        return None
    if name in SPREAD and shape[-1] > 1:
        return math.log(shape[-1])
    return math.log(2) if name == "binary_crossentropy" else None

"""The position of the `tf.data` iterator that `fit` reads, as arrays among those of a saved run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.backend.iterators import is_iterator, position_of

__all__ = ["of", "require", "saved"]

PREFIX = "iterator/"

REFUSED = (
    "Resume: the position in this data cannot be known exactly. Use `data = resume.data(...)` and "
    "`fit(data, steps_per_epoch=data.steps)`, or on TensorFlow a tf.data.Dataset without Python functions and without "
    "random ones that have no seed"
)


def require(data: Any) -> None:
    """Raise unless the position can be known exactly.

    Raises:
        ConfigError: it is no iterator, or one whose state cannot be saved.
    """
    if not is_iterator(data):
        raise errors.ConfigError(REFUSED)
    try:
        position_of(data)
    except errors.ConfigError as error:
        raise errors.ConfigError(f"{error}. {REFUSED}") from error


def of(iterator: Any) -> dict[str, np.ndarray]:
    """Where it is."""
    return {f"{PREFIX}{name}": content for name, content in position_of(iterator).items()}


def saved(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where it was, for `take_position`.

    Raises:
        CheckpointError: the saved run read no iterator.
    """
    files = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
    if not files:
        raise errors.CheckpointError("the saved run got its data from Resume.data; give it the same way")
    return files

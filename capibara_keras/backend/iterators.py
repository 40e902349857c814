"""The position of a `tf.data` iterator, shuffle buffers included, as bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras.errors import CheckpointError, ConfigError

__all__ = ["is_iterator", "position_of", "take_position"]


def is_iterator(x: Any) -> bool:
    """Whether this is an iterator that `tf.data` can save: not one over several replicas."""
    return type(x).__name__ == "OwnedIterator" and type(x).__module__.startswith("tensorflow")


def position_of(iterator: Any) -> dict[str, np.ndarray]:
    """The iterator's state.

    Raises:
        ConfigError: it depends on something outside: Python code, or random numbers without a seed.
    """
    import tensorflow as tf

    policy = iterator._dataset.options().experimental_external_state_policy
    if policy not in (None, tf.data.experimental.ExternalStatePolicy.FAIL):  # Keras' own, for arrays it shuffles
        raise ConfigError(
            "the position in this data cannot be saved: these are arrays that fit shuffles itself, or a dataset whose "
            f"external_state_policy is {policy.name}"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iterator).write(f"{folder}/iterator")
        except tf.errors.FailedPreconditionError as error:
            raise ConfigError(f"the position in this data cannot be saved: {error.message}") from error
        return {path.name: np.frombuffer(path.read_bytes(), np.uint8) for path in Path(folder).iterdir()}


def take_position(iterator: Any, files: dict[str, np.ndarray]) -> None:
    """Move an iterator over the same dataset to a saved position.

    Raises:
        CheckpointError: it is over another dataset.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / Path(name).name).write_bytes(content.tobytes())
        try:
            tf.train.Checkpoint(iterator=iterator).read(f"{folder}/iterator")
        except (tf.errors.OpError, ValueError) as error:
            raise CheckpointError(f"the saved position does not fit this tf.data.Dataset: {error}") from error

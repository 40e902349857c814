"""Variables of every rank and random gradients for them, the same in every process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tests.reference import dense

SHAPES = {"kernel": (4, 3), "bias": (3,), "filters": (2, 2, 1, 3), "embedding": (6, 2), "temperature": ()}
"""Paths of the variables -> shapes. Gradients of the embedding are sparse where the backend has that."""

PRESENT = (
    set(SHAPES),
    {"filters", "temperature"},
    {"kernel", "bias", "embedding"},
)
"""Which variables have a gradient, in problems where some are missing."""


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Initial values that float32 holds exactly."""
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype("float32") for path, shape in SHAPES.items()}


def variables(values: Mapping[str, np.ndarray], constraints: Mapping[str, Any] | None = None) -> list[keras.Variable]:
    """Variables of the default dtype, named by their paths."""
    result = [keras.Variable(value, name=path, dtype=keras.config.floatx()) for path, value in values.items()]
    for variable in result:
        variable.constraint = (constraints or {}).get(variable.name)
    return result


class Micro:
    """A micro-batch's gradients, for the optimizer (`tensors`) and for the reference (`arrays`)."""

    def __init__(self, arrays: dict[str, np.ndarray | None], rows: tuple[np.ndarray, np.ndarray] | None) -> None:
        self.arrays, self.rows = arrays, rows

    @property
    def tensors(self) -> list[Any]:
        """In the order of `SHAPES`; the embedding's as `IndexedSlices` with equal indices on TensorFlow."""
        dtype = keras.config.floatx()
        result = [None if g is None else ops.convert_to_tensor(g, dtype) for g in self.arrays.values()]
        if self.rows is not None and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            indices, values = self.rows
            at = list(SHAPES).index("embedding")
            result[at] = tf.IndexedSlices(tf.constant(values, dtype), tf.constant(indices), SHAPES["embedding"])
        return result


def micro_batches(
    count: int, *, seed: int = 1, scale: float = 1.0, missing: bool = False, broken: float = 0.0
) -> Iterator[Micro]:
    """Random gradients whose norms spread over two orders of magnitude.

    Args:
        count: how many.
        scale: factor on all.
        missing: leave out the gradients of some variables at random.
        broken: share of micro-batches with one entry that is NaN or infinite.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = scale * 10 ** rng.uniform(-1.5, 0.5)
        arrays = {path: size * rng.normal(size=shape).astype("float32") for path, shape in SHAPES.items()}
        arrays = {path: np.asarray(g, "float32") for path, g in arrays.items()}
        indices, values = np.array([4, 0, 4, 2, 0]), (size * rng.normal(size=(5, 2))).astype("float32")
        present = PRESENT[rng.integers(len(PRESENT))] if missing else set(SHAPES)
        if rng.random() < broken:
            flat = arrays["filters"].reshape(-1)
            flat[rng.integers(flat.size)] = rng.choice([np.nan, np.inf, -np.inf])
            present = present | {"filters"}
        rows = (indices, values) if "embedding" in present else None
        sparse = {"embedding": dense(indices, values, SHAPES["embedding"])}
        yield Micro({path: g if path in present else None for path, g in (arrays | sparse).items()}, rows)

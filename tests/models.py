"""Tiny models and data that the behaviour tests share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

__all__ = ["batches", "classifier", "digits", "line", "regression", "regressor", "values", "variables"]


@cache
def digits(size: int = 384) -> tuple[np.ndarray, np.ndarray]:
    """Images of scikit-learn's digits as float32 rows in [0, 1], and their labels."""
    data = load_digits()
    return (data.data[:size] / 16).astype("float32"), data.target[:size]


def classifier(optimizer: Any, seed: int = 0, **compiled: Any) -> keras.Model:
    """A small network for `digits`, the same weights for the same seed."""
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((64,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], **compiled)
    return model


@cache
def regression(size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """A noisy linear map of four inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 4)).astype("float32")
    return x, (x @ [[1.0], [-2.0], [0.5], [3.0]] + 0.1 * rng.normal(size=(size, 1))).astype("float32")


def regressor(optimizer: Any = None, seed: int = 0, **compiled: Any) -> keras.Model:
    """Two dense layers for `regression`, with the same weights on every backend; compiled if there is an optimizer."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
    rng = np.random.default_rng(seed)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.weights])
    if optimizer is not None:
        model.compile(optimizer, "mse", **compiled)
    return model


def batches(size: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """`regression` in batches."""
    x, y = regression()
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def line(optimizer: Any, weight: float = 0.0, constraint: Any = None, **compiled: Any) -> keras.Model:
    """One weight w, whose gradient is the mean of the targets: y = w x with x = 1, loss = w y."""
    layer = keras.layers.Dense(
        1, use_bias=False, kernel_initializer=keras.initializers.Constant(weight), kernel_constraint=constraint
    )
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(optimizer, loss=lambda y, w: y * w, **compiled)
    return model


def variables(*shapes: Sequence[int], seed: int = 0) -> list[keras.Variable]:
    """Random float32 variables."""
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=shape).astype("float32"), name=f"w{i}") for i, shape in enumerate(shapes)]


def values(of: Any) -> list[np.ndarray]:
    """The variables of a model, an optimizer or a list as NumPy arrays."""
    found = getattr(of, "weights", None) or getattr(of, "variables", None) or of
    return [np.array(keras.ops.convert_to_numpy(v)) for v in found]

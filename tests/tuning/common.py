"""A small search that the tests of the tuner share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from capibara_keras import OptimizerAutoTuner
from tests.models import digits

SPACE = {"learning_rate": [1e-4, 1.0, "log"], "beta1": [0.5, 0.95, "uniform"], "warmup_steps": [1, 5, "int"]}


class Traces(keras.layers.Layer):
    """Counts how often a train step that it is in was traced."""

    count = 0

    def call(self, x: Any, training: bool | None = None) -> Any:
        self.count += bool(training)
        return x


def network(compiled: bool = True, **options: Any) -> keras.Model:
    """Digits, with random numbers in a layer; the same weights each time."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(12, "relu"), keras.layers.Dropout(0.1), Traces(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"], **options)
    return model


def data() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and validation."""
    x, y = digits()
    return (x[:256], y[:256]), (x[256:], y[256:])


def tuner(folder: Path, space: Any = SPACE, trials: int = 4, **options: Any) -> OptimizerAutoTuner:
    """Quiet, in a folder of its own."""
    return OptimizerAutoTuner(space, max_trials=trials, directory=folder / "search", verbose=0, **options)


def search(found: OptimizerAutoTuner, model: Any = None, steps: int = 16, **options: Any) -> dict[str, Any]:
    """Run it on the digits."""
    train, validation = data()
    return found.find_optimal_hyperparameters(
        network() if model is None else model, train, validation, steps, **options
    )

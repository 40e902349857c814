"""A training of a task that is ready to run, and what it may be changed by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.health.data import Data
from benchmarks.health.tasks import Task
from capibara_keras import Adam

__all__ = ["Training", "between", "corrupted", "drawn", "training"]

Corrupt = Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass
class Training:
    """One training, ready to run.

    Args:
        corrupt: (update, x, y) -> the batch that is given instead.
        onset: update at which the problem begins.
        warm_up: updates before anybody looks: for models that are trained already.
        watch_validation: whether the validation loss is measured.
    """

    task: Task
    data: Data
    model: keras.Model
    optimizer: Any
    batch_size: int
    updates: int = 300
    loss: Any = None
    corrupt: Corrupt | None = None
    onset: int = 0
    warm_up: int = 0
    watch_validation: bool = False
    baseline: float = float("nan")

    def batches(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches without end, shuffled in each epoch."""
        rng, update = np.random.default_rng(seed), -self.warm_up
        while True:
            order = rng.permutation(len(self.data.x))
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                rows = order[start : start + self.batch_size]
                x, y = self.data.x[rows], self.data.y[rows]
                yield self.corrupt(update, x, y) if self.corrupt and update >= 0 else (x, y)
                update += 1


def training(
    task: Task, seed: int, optimizer: Any = None, *, network: dict[str, Any] | None = None, **options: Any
) -> Training:
    """The healthy training of a task, with changes."""
    keras.utils.set_random_seed(seed)
    data = options.pop("data", None) or task.data(seed)
    known = {"batch_size": task.batch_size, "loss": task.loss, "baseline": task.baseline(data), "updates": task.updates}
    return Training(
        task=task,
        data=data,
        model=options.pop("model", None) or task.model(data, **(network or {})),
        optimizer=Adam(task.rate) if optimizer is None else optimizer,
        **(known | options),
    )


def drawn(seed: int, low: float, high: float) -> float:
    """A number between the two, on a logarithmic scale, by the seed: how sick a training is differs."""
    return float(np.exp(np.random.default_rng(seed + 77).uniform(np.log(low), np.log(high))))


def corrupted(task: Task, seed: int, update: int, change: Callable[..., Any], **options: Any) -> Training:
    """The batch of one update is changed."""
    corrupt = lambda t, x, y: change(x, y) if t == update else (x, y)  # noqa: E731
    return training(task, seed, corrupt=corrupt, onset=update, **options)


def between(result: Training, function: Callable[[Any], Any]) -> Training:
    """The same with a function behind the first layer."""
    x = inputs = keras.Input(result.data.x.shape[1:])
    for i, layer in enumerate(layer for layer in result.model.layers if layer.weights):
        x = layer(x) if i else layers.Lambda(function)(layer(x))
    result.model = keras.Model(inputs, x)
    return result

"""The loss of a model on a batch, as a function of where its weights are."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.experiment import Batch, checked_data, checked_model, cut, movable, rows
from capibara_keras.progress import Progress
from capibara_keras.snapshot import host_copy, preserved

__all__ = ["Loss", "computable", "evaluation"]

Weights = list[np.ndarray]


@contextlib.contextmanager
def evaluation(what: str, model: Any, x: Any, y: Any, weights: Any, batch_size: int | None) -> Iterator[Loss]:
    """The model's loss, while its weights may be moved."""
    model = checked_model(what, model)
    data = checked_data(x, y, weights)
    size = rows(data) if batch_size is None else errors.integer("batch_size", batch_size, 1)
    with preserved(model, optimizer=False):
        loss = Loss(model, data, size)
        here = loss()
        if not math.isfinite(here):
            raise errors.ConfigError(
                f"{what}: the loss of {model.name} on this batch is not finite; look for NaN in x and y"
            )
        yield loss


class Loss:
    """The loss of a model on one batch, as a function of where its weights are."""

    def __init__(self, model: Any, data: Batch, batch_size: int) -> None:
        self.model, self.samples = model, rows(data)
        starts = range(0, self.samples, batch_size)
        self.parts = [data] if len(starts) == 1 else [cut(data, slice(i, i + batch_size)) for i in starts]
        self.variables = movable(model)
        self.origin: Weights = [computable(host_copy(v)) for v in self.variables]

    def __call__(self) -> float:
        """The mean over all samples, with the weights that the model has now; `inf` if it is not finite."""
        total = 0.0
        for x, y, weights in self.parts:
            logs = self.model.test_on_batch(x, y, weights, return_dict=True)
            if "loss" not in logs:
                raise errors.ConfigError(f"test_step of {self.model.name} returns no 'loss', but {sorted(logs)}")
            total += float(logs["loss"]) * rows((x, y, weights))
        return total / self.samples if math.isfinite(total) else math.inf

    def at(self, directions: Sequence[Weights], places: np.ndarray, verbose: bool) -> np.ndarray:
        """The loss at origin + Σ place[i] · direction[i], for each place."""
        progress = Progress(len(places), verbose, "point")
        losses = np.empty(len(places))
        for k, place in enumerate(places):
            for v, start, *moves in zip(self.variables, self.origin, *directions, strict=True):
                v.assign(start + sum(np.asarray(a, start.dtype) * d for a, d in zip(place, moves, strict=True)))
            losses[k] = self()
            progress.step()
        return losses


def computable(w: np.ndarray) -> np.ndarray:
    """Half precision would lose the small steps."""
    return w if w.dtype in (np.float32, np.float64) else w.astype(np.float32)

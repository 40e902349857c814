"""A program for tests/test_experiments_jax.py: experiments on a model with the active backend, as JSON."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

import capibara_keras as ck
from capibara_keras.snapshot import synchronise
from tests import event_files
from tests.models import regression, regressor, values

X, Y = regression()
KEYS = ("rates", "losses", "start_loss")


def state(model: keras.Model) -> list[bytes]:
    return [a.tobytes() for a in values([*model.variables, *model.metrics_variables, *model.optimizer.variables])]


def trained(*callbacks: keras.callbacks.Callback) -> keras.Model:
    """After three epochs."""
    model = regressor(ck.Adam(0.01, epsilon=1e-3, scheduler_type="linear_with_warmup", max_steps=40))
    model.fit(X, Y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def landscape() -> dict[str, Any]:
    """Losses on a line and on a plane, from outside and from inside of `fit`, and whether all was put back."""
    path = ck.Trajectory(limit=6)
    model = trained(path)
    before = state(model)
    line = ck.loss_landscape(model, X, Y, points=5, seed=1)
    plane = ck.trajectory_plane(model, path, X, Y, points=3)
    inside: list[Any] = []

    def look(batch: int, logs: Any) -> None:
        if batch == 2:
            model = callback.model
            synchronise(model)
            weights = [w.tobytes() for w in model.get_weights()]
            inside.append(ck.loss_landscape(model, X, Y, points=3).losses.tolist())
            inside.append(weights == [w.tobytes() for w in model.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    disturbed, quiet = trained(callback), trained()
    return {
        "line": line.losses.tolist(),
        "explained": plane.explained,
        "updates": path.updates,
        "same": state(model) == before and inside[1] and inside[3] and inside[5],
        "undisturbed": state(disturbed)[: len(quiet.weights)] == state(quiet)[: len(quiet.weights)],
    }


def rates() -> dict[str, Any]:
    """A range test, and whether all was put back."""
    model = trained()
    before = state(model)
    test = ck.range_test(model, X, Y, batch_size=8, low=1e-4, high=10, steps=12)
    again = ck.range_test(model, X, Y, batch_size=8, low=1e-4, high=10, steps=12)
    return {"losses": test.losses.tolist(), "repeats": bool(np.array_equal(test.losses, again.losses))} | {
        "same": state(model) == before
    }


def events() -> dict[str, Any]:
    """The steps and the last loss in an event file."""
    with tempfile.TemporaryDirectory() as folder:
        trained(ck.TensorBoardStatistics(folder, every=2))
        found = event_files.read(Path(folder) / "health")
    steps, numbers = zip(*found["scalars health/grad_norm"], strict=True)
    return {"steps": steps, "norms": numbers, "loss": found["scalars health/loss"][-1][1]}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps({"landscape": landscape(), "rates": rates(), "events": events()}))

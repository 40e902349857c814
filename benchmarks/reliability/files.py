"""Files that were cut, flipped, or are of something else: refused, and nothing is changed."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.common import Ledger, network, regression, state

__all__ = ["run"]


def run(ledger: Ledger, count: int, seconds: float = math.inf) -> None:
    """Until there are `count` in the ledger, or for so many seconds.

    A damaged `.run` file must be refused. Of a damaged file of Keras, the optimizer's state must be refused or be
    untouched; Keras has no digest for the weights of layers in `.weights.h5`, and what it lets through is counted.
    """
    import capibara_keras as ck

    end, rng = time.monotonic() + seconds, ledger.random("files")
    x, y = regression(16)
    trained, fresh = network(ck.Adam(1e-2)), network(ck.Adam(1e-2))
    for _ in range(3):
        trained.train_on_batch(x, y)
    fresh.optimizer.build(fresh.trainable_variables)
    start = state(fresh)
    with tempfile.TemporaryDirectory() as folder:
        kinds = writers(trained, Path(folder))
        contents = {name: path.read_bytes() for name, (path, _) in kinds.items()}
        while ledger.count("files") < count and time.monotonic() < end:
            found = {"refused": 0, "let_through_by_keras": 0, "harmless": 0}
            failures: list[str] = []
            for name, (path, load) in kinds.items():
                how, content = damaged(contents[name], rng)
                path.write_bytes(content)
                for variable, value in zip([*fresh.variables, *fresh.optimizer.variables], start, strict=True):
                    variable.assign(value)
                verdict = attempt(load, fresh, trained, start)
                if verdict in found:
                    found[verdict] += 1
                else:
                    failures.append(f"{name}, {how}: {verdict}")
            ledger.add("files", len(kinds), failures, **found)


def writers(model: Any, folder: Path) -> dict[str, tuple[Path, Callable[[Any], None]]]:
    """Kind -> a good file, and how it is loaded into a model."""
    from capibara_keras.callbacks import run_state
    from capibara_keras.resuming import archive

    weights, run_file = folder / "a.weights.h5", folder / "a.run"
    model.save_weights(weights)
    archive.write(run_file, *run_state.take(model, []))
    return {
        "weights.h5": (weights, lambda one: one.load_weights(weights)),
        "run": (run_file, lambda one: run_state.put(one, archive.read(run_file)[1])),
    }


def damaged(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Cut, with a flipped bit, or of another kind."""
    how = str(rng.choice(["cut", "flipped", "flipped", "foreign"]))
    if how == "cut":
        return how, content[: int(rng.integers(len(content)))]
    if how == "foreign":
        other = io.BytesIO()
        np.savez(other, a=np.zeros(3))
        return how, [b"", b"{}", rng.bytes(500), other.getvalue()][int(rng.integers(4))]
    flipped = bytearray(content)
    flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return how, bytes(flipped)


def attempt(load: Callable[[Any], None], fresh: Any, trained: Any, start: list[np.ndarray]) -> str:
    """What loading did: "refused", "harmless", "let_through_by_keras", or what was wrong."""
    layers = len(fresh.variables)
    refused = False
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        try:
            load(fresh)
        except Exception:
            refused = True
    now, good = state(fresh), state(trained)
    same = [_equal(a, b) for a, b in zip(now, start, strict=True)]
    right = [_equal(a, b) for a, b in zip(now, good, strict=True)]
    if refused:
        whole = all(same[layers:]) or all(right[layers:])  # it may have been restored before the layers were refused
        return "refused" if whole else "refused, and the optimizer's state is neither the old nor the new one"
    if all(right):
        return "harmless"  # the flipped bit means nothing
    if all(right[layers:]) or all(same[layers:]):
        return "let_through_by_keras"
    return "loaded a wrong state of the optimizer"


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")

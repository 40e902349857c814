"""Configurations from strangers: loading one must run no code of theirs."""

from __future__ import annotations

import json
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.common import Ledger, network

__all__ = ["attacks", "run"]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def attacks(marker: Path, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name, and what loads the attack. Code that runs makes the file `marker`."""
    import keras

    import capibara_keras as ck
    from capibara_keras.resuming import archive

    def touch() -> float:
        marker.touch()
        return 0.1

    function = keras.saving.serialize_keras_object(lambda: touch())
    values = {
        "lambda": function,
        "function of os": {"module": "os", "class_name": "function", "config": "abort", "registered_name": "function"},
        "class": {
            "module": "subprocess",
            "class_name": "Popen",
            "config": {"args": f"touch {marker}", "shell": True},
            "registered_name": None,
        },
        "pickle as text": pickle.dumps(Bomb(marker)).hex(),
        "pickle": pickle.dumps(Bomb(marker)),
        "code": f"__import__('pathlib').Path({str(marker)!r}).touch()",
    }
    for what, value in values.items():
        for option in ("learning_rate", "scheduler_type", "groups", "adaptive_clipping", "differential_learning_rates"):
            yield f"{option}: {what}", lambda o=option, v=value: _trained(ck.Optimizer.from_config({o: v}))
        wrapped = {"module": "capibara_keras", "class_name": "Adam", "config": {"learning_rate": value}}
        wrapped["registered_name"] = "capibara_keras>Adam"
        yield f"keras.optimizers.deserialize: {what}", lambda v=wrapped: _trained(keras.optimizers.deserialize(v))
    for name in ("pickled.run", "pickled.npz"):
        path = folder / name
        path.write_bytes(pickle.dumps(Bomb(marker)))
        yield f"run file: {name}", lambda p=path: archive.read(p)
    objects = folder / "objects.run"
    objects.write_bytes(_with_object_dtype(marker))
    yield "run file: object dtype", lambda: archive.read(objects)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: touch() * x), keras.layers.Dense(1)])
    marker.unlink(missing_ok=True)  # building the model ran it
    model.compile(ck.Adam(), "mse")
    saved = folder / "lambda.keras"
    model.save(saved)
    marker.unlink(missing_ok=True)
    yield "model with a lambda", lambda: keras.saving.load_model(saved)


def _with_object_dtype(marker: Path) -> bytes:
    from capibara_keras.resuming import archive

    pickled = pickle.dumps(Bomb(marker))
    head = json.dumps({"format": 1, "description": {}, "arrays": [["a", "object", [len(pickled) // 8]]]}).encode()
    import hashlib

    body = archive.MAGIC + len(head).to_bytes(8, "little") + head + pickled
    return body + hashlib.sha256(body).digest()


def _trained(optimizer: Any) -> Any:
    model = network(optimizer)
    model.train_on_batch(np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32"))


def run(ledger: Ledger) -> None:
    """Each attack once: it must be refused, and leave no trace."""
    failures, count = [], 0
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, marker = Path(name), Path(name) / "ran"
        for what, load in attacks(marker, folder):
            count += 1
            try:
                load()
            except Exception:
                pass
            else:
                failures.append(f"{what}: was accepted")
            if marker.exists():
                failures.append(f"{what}: ran code")
                marker.unlink()
    ledger.put("untrusted", {"count": count, "failures": failures})

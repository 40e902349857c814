"""A tiny model, its data, and the file that counts what was tried."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MEASURED", "Ledger", "network", "regression", "state"]

MEASURED = ("statistics", "variable_norms", "losses", "clip_history", "spike_history", "hyperparameters")
"""Variables that are not the algorithm's: NaN is what was not measured yet, and a bad batch's numbers are bad."""


class Ledger:
    """A JSON file with one entry per part; counts add up over runs, so a long part can be done in pieces.

    Args:
        path: of the file; made if it is not there.
        seed: of the parts' random numbers, beside what is counted.
    """

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.path, self.seed = path, seed
        self.entries: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, part: str, count: int, failures: list[str], **more: int) -> None:
        """Add to a part's counts; failures are kept as text, at most 50."""
        entry = self.entries.setdefault(part, {"count": 0, "failures": []})
        entry["count"] += count
        entry["failures"] = [*entry["failures"], *failures][:50]
        for name, value in more.items():
            entry[name] = entry.get(name, 0) + value
        self.write()

    def put(self, part: str, entry: dict[str, Any], *, final: bool = True) -> None:
        """Set a part's entry."""
        self.entries[part] = entry | ({} if final else {"unfinished": True})
        self.write()

    def count(self, part: str) -> int:
        """How many have been done."""
        return int(self.entries.get(part, {}).get("count", 0))

    def random(self, part: str) -> np.random.Generator:
        """Another one for each seed, and each time that a part goes on."""
        return np.random.default_rng([self.seed, self.count(part)])

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".writing")
        temporary.write_text(json.dumps(self.entries, indent=1))
        os.replace(temporary, self.path)


def regression(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy linear map of four inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 4)).astype("float32")
    return x, (x @ [[1.0], [-2.0], [0.5], [3.0]] + 0.1 * rng.normal(size=(rows, 1))).astype("float32")


def network(optimizer: Any, dropout: bool = False, **compiled: Any) -> Any:
    """Two dense layers with the same weights each time."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, "tanh", name="a"), *([keras.layers.Dropout(0.5)] if dropout else [])]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, name="b")])
    model.compile(optimizer, "mse", **compiled)
    return model


def state(model: Any) -> list[np.ndarray]:
    """All variables of a model and its optimizer."""
    import keras

    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]

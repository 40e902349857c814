"""Regret on real training: the algorithms search the optimizer's options of small models with the same steps each."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.tuning import training
from capibara_keras import OptimizerAutoTuner
from capibara_keras.errors import ConfigError

Data = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Task:
    """A model, its data, and how long a trial is.

    Args:
        steps: batches of a full trial.
        trials: full trials that every algorithm's budget is worth.
    """

    network: Callable[[], keras.Model]
    data: Callable[[], tuple[Data, Data]]
    steps: int
    trials: int
    batch_size: int


def bytes_of_python() -> tuple[Data, Data]:
    """Windows of 32 bytes of Keras' own source code, and the byte that follows each; other files for validation."""
    files = sorted(Path(keras.__file__).parent.rglob("*.py"))
    parts = [np.frombuffer(b"".join(p.read_bytes() for p in files[i::4])[:200_000], np.uint8) for i in (0, 1)]
    rng, found = np.random.default_rng(0), []
    for text, count in zip(parts, (4000, 512), strict=True):
        windows = text[rng.integers(0, len(text) - 33, count)[:, None] + np.arange(33)].astype("int32")
        found.append((windows[:, :-1], windows[:, 1:]))
    return found[0], found[1]


def byte_model() -> keras.Model:
    """A GRU that predicts the next byte."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(256, 24), keras.layers.GRU(48, return_sequences=True), keras.layers.Dense(256)]
    model = keras.Sequential([keras.Input((32,), dtype="int32"), *layers])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


TASKS = {
    "digits": Task(training.network, training.digits, 240, 20, 64),
    "bytes": Task(byte_model, bytes_of_python, 120, 12, 32),
}
ALGORITHMS = ("bayesian_optimization", "random", "optuna", "keras_tuner_bayesian", "hyperband")
"""The first stops early; "hyperband" is keras-tuner's rule over random configurations. The others train in full."""


def search(task: Task, algorithm: str, seed: int) -> dict[str, float]:
    """The best loss within a budget of `task.trials * task.steps` batches, and the seconds of the search.

    Trials that were stopped early leave steps for more trials: `max_trials` is larger than the budget, and the first
    trial that goes over it is the last.
    """
    early = {"bayesian_optimization": "successive_halving", "hyperband": "hyperband"}.get(algorithm, "none")
    budget, start = task.steps * task.trials, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trials, used = task.trials, 0
        model, (train, validation) = task.network(), task.data()
        while used < budget:
            tuner = OptimizerAutoTuner(
                training.SPACE,
                search_algorithm=algorithm,
                max_trials=trials,
                early_termination=early,
                seed=seed,
                directory=folder,
                verbose=0,
            )
            tuner.find_optimal_hyperparameters(model, train, validation, task.steps, batch_size=task.batch_size)
            used = sum(t.steps for t in tuner.trials)
            trials += max(1, (budget - used) // task.steps)
        left, best = budget, math.inf
        for trial in tuner.trials:
            left -= trial.steps
            if left >= 0 and trial.status == "completed":
                best = min(best, trial.score)
    return {"best": best, "trials": len(tuner.trials), "seconds": time.perf_counter() - start}


def run(results: Path, algorithms: Sequence[str], seeds: range, limit: float) -> None:
    """Do the searches that `results` does not hold yet, for at most `limit` seconds."""
    known: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    start = time.monotonic()
    for seed in seeds:
        for name, task in TASKS.items():
            for algorithm in algorithms:
                key = f"{name}/{algorithm}/{seed}"
                if key in known or time.monotonic() - start > limit:
                    continue
                try:
                    known[key] = search(task, algorithm, seed)
                except ConfigError as error:  # Optuna is not installed
                    print(error)
                    continue
                results.write_text(json.dumps(known))


def table(results: Path) -> str:
    """Median loss above the best that any search found, and how many searches that is of."""
    known = json.loads(results.read_text())
    found = {key.split("/")[1] for key in known}
    algorithms = [a for a in ALGORITHMS if a in found]
    lines = ["| | " + " | ".join(algorithms) + " |", "|---" * (len(algorithms) + 1) + "|"]
    for name, task in TASKS.items():
        rows = {a: [v for k, v in known.items() if k.startswith(f"{name}/{a}/")] for a in algorithms}
        best = min((v["best"] for mine in rows.values() for v in mine), default=math.nan)
        cells = [_cell(mine, best) for mine in rows.values()]
        lines.append(f"| {name}: {task.trials} × {task.steps} batches, best {best:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(mine: list[dict[str, float]], best: float) -> str:
    """Of one algorithm's searches."""
    if not mine:
        return "not measured"
    score, trials, seconds = (np.median([v[name] for v in mine]) for name in ("best", "trials", "seconds"))
    return f"{score - best:.4f} ({len(mine)}; {trials:.0f} trials, {seconds:.0f} s)"

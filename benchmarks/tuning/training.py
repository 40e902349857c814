"""Searches with real training: what early termination saves, and what a search costs beside the training."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

from capibara_keras import OptimizerAutoTuner
from capibara_keras.tuning import Halving, TrialRecord
from capibara_keras.tuning.halving import EARLY_TERMINATION, Rungs
from capibara_keras.tuning.trials import Search

STEPS = 480
SPACE = {
    "learning_rate": [1e-5, 1.0, "log"],
    "beta1": [0.5, 0.99, "uniform"],
    "beta2": [0.9, 0.9999, "uniform"],
    "weight_decay": [1e-5, 1.0, "log"],
    "warmup_steps": [1, 40, "int"],
    "gradient_clip_norm": [0.05, 10.0, "log"],
}


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and validation."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = (data.data[order] / 16).astype("float32"), data.target[order]
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


class Traces(keras.layers.Layer):
    """Counts the traces of the train step."""

    count = 0

    def call(self, x: keras.KerasTensor, training: bool | None = None) -> keras.KerasTensor:
        """As it is."""
        self.count += bool(training)
        return x


def network() -> keras.Model:
    """Two layers with dropout."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.2), Traces(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def rss() -> float:
    """Resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def resources(folder: Path, trials: int = 50) -> str:
    """Memory, disk and traces over a search; seconds per trial beside the training."""
    shutil.rmtree(folder, ignore_errors=True)
    model, (train, validation) = network(), digits()
    memory: list[float] = []
    tuner = OptimizerAutoTuner(SPACE, max_trials=trials, directory=folder, verbose=0)
    ended = tuner._ended

    def watched(record: TrialRecord, search: Search, steps: int) -> None:
        ended(record, search, steps)
        memory.append(rss())

    tuner._ended = watched  # type: ignore[method-assign]
    start = time.perf_counter()
    tuner.find_optimal_hyperparameters(model, train, validation, 64, batch_size=64)
    seconds = time.perf_counter() - start
    half = trials // 5
    slope = np.polyfit(range(half, trials), memory[half:], 1)[0]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    weights = sum(size for name, size in sizes.items() if name.endswith(".h5"))
    traces = next(layer.count for layer in model.layers if isinstance(layer, Traces))
    return (
        f"{trials} trials in {seconds:.1f} s: {slope:.3f} MiB of memory per trial after the first {half}, one file of "
        f"weights of {weights / 1024:.0f} KB, {(sum(sizes.values()) - weights) / trials / 1024:.2f} KB per trial "
        f"beside, {traces} trace(s) of the train step"
    )


def curves(folder: Path, trials: int = 120) -> list[TrialRecord]:
    """Random configurations, trained in full; goes on where it stopped."""
    tuner = OptimizerAutoTuner(
        SPACE, search_algorithm="random", max_trials=trials, early_termination="none", directory=folder, verbose=0
    )
    tuner.find_optimal_hyperparameters(network(), *digits(), STEPS, batch_size=64)
    return tuner.trials


RULES: dict[str, Halving | None] = {
    "successive halving (1/8, 3/8), 2: the default": EARLY_TERMINATION["successive_halving"],
    "successive halving (1/8, 3/8), 3": Halving((0.125, 0.375), 3.0),
    "successive halving (1/16, 1/4, 1/2), 2": Halving((0.0625, 0.25, 0.5), 2.0),
    "hyperband": EARLY_TERMINATION["hyperband"],
}


def replay(trials: list[TrialRecord], orders: int = 200) -> str:
    """What rules would have saved, and how often they would have stopped the best configuration."""
    lines = ["| rule | steps saved | best missed | excess of the best found |", "|---|---|---|---|"]
    finals = {t.number: min(t.curve["val_loss"]) for t in trials if t.status == "completed"}
    best = min(finals, key=lambda n: finals[n])
    for name, halving in RULES.items():
        used, missed, excess = [], 0, []
        for seed in range(orders):
            order = np.random.default_rng(seed).permutation(len(trials))
            rungs, steps, found = Rungs(halving, STEPS), 0, []
            for place, index in enumerate(order):
                trial = trials[index]
                before, lowest, kept = 0, np.inf, True
                for step, value in zip(trial.curve["step"], trial.curve["val_loss"], strict=True):
                    if not np.isfinite(value):
                        kept = False
                        break
                    lowest = min(lowest, value)
                    kept = rungs.keeps(place, before, step, lowest, trial.options["warmup_steps"])
                    before = step
                    if not kept:
                        break
                steps += before
                if kept and trial.number in finals:
                    found.append(trial.number)
            used.append(steps / sum(t.steps for t in trials))
            missed += best not in found
            excess.append(min(finals[n] for n in found) - finals[best])
        lines.append(f"| {name} | {1 - np.mean(used):.0%} | {missed / orders:.1%} | {np.mean(excess):.5f} |")
    return "\n".join([*lines, "", json.dumps({"trials": len(trials), "steps": STEPS, "orders": orders})])

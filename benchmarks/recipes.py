"""`python -m benchmarks.recipes`: recipes as they come, without any tuning, beside what they should replace.

Pretraining: the recipe against Keras' AdamW at the best of 20 settings (10 rates from 1e-4 to 0.1, the default decay
or 0.1) after the same number of updates. Fine-tuning: the recipe against Keras' Adam with its defaults.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import capibara_keras as ck
from benchmarks.training.contenders import CONTENDERS, Contender
from benchmarks.training.racing import Race
from benchmarks.training.workloads import WORKLOADS, Workload

sys.path.append(str(Path(__file__).parents[1] / "examples"))

RATES = np.geomspace(1e-4, 0.1, 10)
DECAYS = (0.004, 0.1)
SEEDS = (1, 2, 3)


def pretraining(workload: Workload) -> dict[str, Any]:
    """Losses at the end, and the update at which the recipe was at AdamW's."""
    until_the_end = replace(workload, target=-math.inf)
    tuned: list[tuple[float, float, float, Race]] = []
    for decay in DECAYS:
        stock = Contender("Keras AdamW", lambda w, decay=decay: keras.optimizers.AdamW(weight_decay=decay), 1e-3)
        race = Race(stock, until_the_end)
        for rate in RATES:
            loss = race.run(float(rate), seed=0).curve[-1]
            tuned.append((loss if math.isfinite(loss) else math.inf, float(rate), decay, race))
            print(f"{workload.name}: AdamW rate {rate:.1e}, decay {decay}: {loss:.4f}", flush=True)
    _, rate, decay, race = min(tuned, key=lambda trial: trial[0])
    ours = Race(CONTENDERS["Recipe: pretraining"], until_the_end)
    found: dict[str, Any] = {"rate": rate, "decay": decay, "adamw": [], "recipe": [], "updates": []}
    for seed in SEEDS:
        theirs, mine = race.run(rate, seed).curve, ours.run(1.0, seed).curve
        there = next((i for i, loss in enumerate(mine, 1) if loss <= theirs[-1]), None)
        found["adamw"].append(theirs[-1])
        found["recipe"].append(mine[-1])
        found["updates"].append(None if there is None else there * workload.every)
    found["of"] = workload.steps
    return found


def finetuning(seeds: int, epochs: int) -> dict[str, list[float]]:
    """Accuracies on digits that the network had not seen, from four examples of each."""
    import finetune_classifier as example

    found: dict[str, list[float]] = {"adam": [], "recipe": []}
    ways: dict[str, Callable[[], Any]] = {
        "adam": keras.optimizers.Adam,
        "recipe": lambda: ck.Optimizer.create_finetuning_optimizer("image_classification", "20", epochs),
    }
    for seed, chosen, rest, weights in episodes(example, seeds):
        for name, make in ways.items():
            model = example.compiled(example.with_new_head(weights, seed), make())
            keras.utils.set_random_seed(seed)
            x, y = example.IMAGES[chosen], example.LABELS[chosen] - 5
            model.fit(x, y, batch_size=10, epochs=epochs, verbose=0, callbacks=[ck.Attach()])
            held = example.IMAGES[rest], example.LABELS[rest] - 5
            found[name].append(float(model.evaluate(*held, batch_size=512, verbose=0)[1]))
        print(f"fine-tuning, seed {seed}: " + ", ".join(f"{k} {v[-1]:.3f}" for k, v in found.items()), flush=True)
    return found


def episodes(example: Any, seeds: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, list[np.ndarray]]]:
    """Seed, rows to train on, rows to judge by, pretrained weights."""
    labels, new = example.LABELS, np.flatnonzero(example.LABELS >= 5)
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(np.flatnonzero(digit == labels))[: example.SHOTS] for digit in range(5, 10)]
        rows = np.concatenate(chosen)
        yield seed, rows, np.setdiff1d(new, rows), example.pretrained(seed, epochs=8)


def table(results: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["| | peer | recipe | |", "|---|---|---|---|"]
    for name, found in results.items():
        if name == "fine-tuning":
            gain = np.subtract(found["recipe"], found["adam"])
            means = [f"{np.mean(found[k]):.3f} ± {np.std(found[k]):.3f}" for k in ("adam", "recipe")]
            lines.append(
                f"| fine-tuning, accuracy | {means[0]} | {means[1]} | better on {(gain > 0).sum()} of {len(gain)} |"
            )
            continue
        means = [f"{np.mean(found[k]):.4f} ± {np.std(found[k]):.4f}" for k in ("adamw", "recipe")]
        there = ", ".join("never" if n is None else str(n) for n in found["updates"])
        peer = f"{means[0]} (rate {found['rate']:.1e}, decay {found['decay']})"
        lines.append(f"| {name}, loss after {found['of']} updates | {peer} | {means[1]} | there after {there} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--workloads", nargs="*", default=["text", "vit"], choices=list(WORKLOADS))
    parser.add_argument("--seeds", type=int, default=5, help="of fine-tuning; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=40, help="of fine-tuning")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    given = parser.parse_args()
    results: dict[str, Any] = {name: pretraining(WORKLOADS[name]) for name in given.workloads}
    if given.seeds:
        results["fine-tuning"] = finetuning(given.seeds, given.epochs)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "results.json").write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()

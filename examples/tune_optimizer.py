"""Search the optimizer's options for a small network, and compare with the defaults.

The network learns scikit-learn's digits. Each trial is 480 batches; trials that are behind are stopped early. A second
run of this program goes on where the first one stopped.

    python examples/tune_optimizer.py                 # 30 trials, about a minute, and a report
    python examples/tune_optimizer.py --quick         # a few short trials: only to see it run
    python examples/tune_optimizer.py --model language    # the demo's language model instead
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import language_model as lm
import numpy as np
from sklearn.datasets import load_digits

import capibara_keras as ck

SPACE: dict[str, Any] = {
    "algorithm": ["adamw", "sgd", "choice"],
    "learning_rate": [1e-4, 1.0, "log"],
    "momentum": [0.5, 0.99, "uniform"],
    "beta1": [0.7, 0.99, "uniform"],
    "weight_decay": [1e-5, 1e-1, "log"],
    "scheduler_type": ["cosine_with_warmup", "constant_with_warmup", "choice"],
    "warmup_ratio": [0.0, 0.2, "uniform"],
    "gradient_clip_norm": [0.1, 10.0, "log"],
}
Data = tuple[np.ndarray, np.ndarray]


def digits() -> tuple[Data, Data]:
    """Training and validation."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = (data.data[order] / 16).astype("float32"), data.target[order]
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def classifier() -> keras.Model:
    """Two layers with dropout; the same weights each time."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def source_code() -> tuple[Data, Data]:
    """Windows of Python's own source code, and the bytes that follow; files of its own for validation."""
    corpus, context = lm.read_corpus(), lm.SIZES["tiny"].context
    starts = np.random.default_rng(0).integers(0, len(corpus.train) - context - 1, 4000)
    return lm.windows(corpus.train, starts, context), lm.validation_windows(corpus.validation, 128, context)


def language_model() -> keras.Model:
    """The demo's Transformer, in its smallest size; the same weights each time."""
    keras.utils.set_random_seed(0)
    model = lm.build_model(lm.SIZES["tiny"])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


TASKS: dict[str, tuple[Callable[[], keras.Model], Callable[[], tuple[Data, Data]]]] = {
    "digits": (classifier, digits),
    "language": (language_model, source_code),
}


def main() -> None:
    """Search, report, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=TASKS, default="digits")
    parser.add_argument("--out", type=Path, default=Path("runs/tune_optimizer"))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    trials, steps = (4, 32) if given.quick else (30, 480)
    network, data = TASKS[given.model]
    model, (train, validation) = network(), data()
    tuner = ck.OptimizerAutoTuner(SPACE, max_trials=trials, directory=given.out)
    best = tuner.find_optimal_hyperparameters(model, train, validation, steps, steps // 3)
    print(tuner.table(most=5))
    print("report:", tuner.report()["report.html"])

    model.fit(*train, epochs=max(1, steps // -(-len(train[0]) // 32)), verbose=0)
    default = float(model.evaluate(*validation, verbose=0, return_dict=True)["loss"])
    print(f"validation loss: Adam with its defaults {default:.4f}, tuned {tuner.best.score:.4f}")
    for name, value in best.items():
        print(f"  {name}: {value}")


if __name__ == "__main__":
    main()

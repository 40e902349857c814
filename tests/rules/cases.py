"""Every algorithm with the options that change its path, on two variables, for tests on any backend.

python tests/rules/cases.py             prints {case: weights after windows with clipping}
python tests/rules/cases.py replicas    the same on two replicas of TensorFlow, with half of each gradient on each
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import capibara_keras as ck
from capibara_keras.config import MODIFIERS
from tests.rules.transcriptions import TRANSCRIPTIONS, modified

DATA = json.loads((Path(__file__).parents[1] / "data" / "optimizers.json").read_text())
OPTAX, TORCH, _ = [key for key in DATA if key != "problem"]
RATE, CLIP, SMALL = 0.01, 0.5, 2

CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"weight_decay": 0.1},
    "nadam": {},
    "nadam, momentum rises": {"momentum_decay": 1.0, "weight_decay": 0.1},
    "nadamw": {"weight_decay": 0.1},
    "radam": {"weight_decay": 0.1, "beta_2": 0.99},
    "adamax": {"weight_decay": 0.1},
    "adagrad": {"initial_accumulator_value": 0.1, "weight_decay": 0.1},
    "adadelta": {"weight_decay": 0.1},
    "rmsprop": {"weight_decay": 0.1},
    "rmsprop, centered": {"momentum": 0.9, "centered": True},
    "ftrl": {"weight_decay": 0.1},
    "ftrl, sparse": {
        "l1_regularization_strength": 0.5,
        "l2_regularization_strength": 0.1,
        "l2_shrinkage_regularization_strength": 0.1,
        "beta": 1.0,
        "learning_rate_power": -0.7,
    },
    "lion": {"weight_decay": 0.1},
    "lamb": {"weight_decay": 0.1},
    "lars": {"weight_decay": 0.1},
    "lars, nesterov": {"nesterov": True},
    "adopt": {},
    "adopt, no clipping": {"clip": False, "weight_decay": 0.1},
    "adan": {"weight_decay": 0.1},
    "ademamix": {},
    "ademamix, horizon": {"horizon": 4, "weight_decay": 0.1},
    "adamw, cautious": {"weight_decay": 0.1, "cautious": True},
    "lion, cautious": {"cautious": True},
    "sgd, centralized": {"momentum": 0.9, "gradient_centralization": True},
    "adam, lookahead": {"lookahead_steps": 2, "lookahead_alpha": 0.6, "weight_decay": 0.1},
    "mars": {"weight_decay": 0.1, "gamma": 0.3},
    "lazyadam": {"weight_decay": 0.1},
    "prodigy": {"initial_distance": 0.1, "weight_decay": 0.1, "learning_rate": 0.5},
    "muon": {"weight_decay": 0.1},
    "muon, split": {"adjust_rate": "original", "split": 2, "nesterov": False},
    "soap": {"weight_decay": 0.1, "precondition_frequency": 2},
    "soap, one side": {"max_precondition_dim": 2},
    "schedulefreeadamw": {"weight_decay": 0.1},
    "schedulefreesgd": {"weight_decay": 0.1},
    "adafactor": {"min_dim_size_to_factor": SMALL},
    "adafactor, whole": {"relative_step": False, "scale_parameter": False, "weight_decay": 0.1},
}
"""Name -> options; the algorithm is the name up to the comma."""

TOGETHER = ("prodigy",)
"""Algorithms that look at all variables at once."""

PUBLISHED = {
    "nadam": (TORCH, "NAdam"),
    "nadamw": (OPTAX, "nadamw wd.1"),
    "lion": (OPTAX, "lion wd.1"),
    "lion, cautious": (TORCH, "po.Lion cautious"),
    "lamb": (OPTAX, "lamb wd.1"),
    "lars": (OPTAX, "lars wd.1"),
    "adopt": (OPTAX, "adopt"),
    "ademamix": (OPTAX, "ademamix"),
    "adafactor": (OPTAX, "adafactor(min_dim 2)"),
}
"""Cases of which torch or optax computed the first variable."""


def algorithm(case: str) -> str:
    return case.split(",")[0]


def weights() -> list[np.ndarray]:
    """The matrix of the published problem, and a vector."""
    return [np.array(DATA["problem"]["p0"]), np.array([0.5, -1.0, 0.25, 0.0])]


def gradients(count: int = 5) -> Iterator[list[np.ndarray]]:
    """Those of the published problem, and others for the vector."""
    i, j = np.arange(6.0).reshape(3, 2), np.arange(4.0)
    for t in range(1, count + 1):
        yield [0.1 * (i + 1) * np.cos(0.7 * t + i), 0.3 * np.sin(0.9 * t + 2 * j)]


def clipped_windows(count: int = 8) -> Iterator[list[np.ndarray]]:
    """Means of pairs of them, at a global norm of at most `CLIP`."""
    micro = list(gradients(count))
    for a, b in zip(micro[::2], micro[1::2], strict=True):
        mean = [(x + y) / 2 for x, y in zip(a, b, strict=True)]
        norm = np.sqrt(sum(np.sum(x**2) for x in mean))
        yield [x * min(1.0, CLIP / norm) for x in mean]


def expected(case: str, grads: list[list[np.ndarray]]) -> list[np.ndarray]:
    """By the transcription, in float64."""
    options = dict(CASES[case])
    decay, rate = options.pop("weight_decay", 0.0), options.pop("learning_rate", RATE)
    modifiers = {name: options.pop(name) for name in list(options) if name in MODIFIERS}
    if algorithm(case) in TOGETHER:
        whole = [np.concatenate([x.ravel() for x in g]) for g in (weights(), *grads)]
        end = TRANSCRIPTIONS[algorithm(case)](whole[0], whole[1:], rate, decay, **options)
        sizes = np.cumsum([w.size for w in weights()])[:-1]
        return [x.reshape(w.shape) for x, w in zip(np.split(end, sizes), weights(), strict=True)]
    results = []
    for i, w in enumerate(weights()):
        own = [g[i] for g in grads]
        if modifiers:
            train = partial(TRANSCRIPTIONS[algorithm(case)], np.zeros_like(w), rate=rate, **options)
            results.append(modified(train, w, own, rate * decay, **modifiers))
        else:
            results.append(TRANSCRIPTIONS[algorithm(case)](w, own, rate, decay, **options))
    return results


class Run:
    """An optimizer and its two variables; `first` are their values once `windows` is through."""

    first: list[np.ndarray]

    def __init__(self, case: str, **options: Any) -> None:
        self.variables = [keras.Variable(w, name=f"w{i}", dtype="float32") for i, w in enumerate(weights())]
        self.optimizer = ck.Optimizer(algorithm(case), **{"learning_rate": RATE} | CASES[case], **options)

    def apply(self, grads: list[np.ndarray]) -> None:
        self.optimizer.apply([ops.convert_to_tensor(g, "float32") for g in grads], self.variables)

    def values(self) -> list[np.ndarray]:
        return [np.array(ops.convert_to_numpy(v)) for v in self.variables]


def plain(case: str, **options: Any) -> list[np.ndarray]:
    """Five updates."""
    run = Run(case, **options)
    for g in gradients():
        run.apply(g)
    return run.values()


def windows(case: str) -> Run:
    """Four updates of two micro-batches, clipped."""
    run = Run(case, global_clipnorm=CLIP, gradient_accumulation_steps=2)
    for g in gradients(8):
        run.apply(g)
    run.first = run.values()
    return run


def replicated(case: str) -> list[np.ndarray]:
    """As `windows`, under a strategy."""
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        run = Run(case, global_clipnorm=CLIP, gradient_accumulation_steps=2)
        run.optimizer.build(run.variables)
    apply = tf.function(lambda *grads: strategy.run(run.optimizer.apply, args=(grads, run.variables)))
    for grads in gradients(8):
        apply(*[tf.constant(g / 2, tf.float32) for g in grads])
    return run.values()


if __name__ == "__main__" and sys.argv[1:] == ["replicas"]:
    print(json.dumps({case: [w.tolist() for w in replicated(case)] for case in CASES}))
elif __name__ == "__main__":
    print(json.dumps({case: [w.tolist() for w in windows(case).values()] for case in CASES}))

"""Prints the tables of docs/parity.md: constructor arguments side by side, and how far the weights drift apart.

python docs/scripts/parity.py              both tables; half a minute
python docs/scripts/parity.py arguments    the first alone
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

import capibara_keras as ck

UPDATES = 50
NAMES = ("Adam", "AdamW", "SGD")

OTHERS = ("RMSprop", "Adagrad", "Adadelta", "Adamax", "Ftrl", "Lion", "Nadam", "Lamb", "Adafactor")
"""Classes that Keras has too, with the same arguments; see tests/rules/test_rules.py."""

WITHOUT_EPSILON = ("SGD", "Ftrl", "Lion", "Adafactor")

NOTES = {
    "learning_rate": "whole numbers and NumPy numbers too; can be assigned on top of a schedule",
    "epsilon": "outside the square root, after bias correction",
    "weight_decay": "same; other modes: `weight_decay_mode`",
    "clipnorm": "acts after the sum over replicas",
    "clipvalue": "acts after the sum over replicas",
    "global_clipnorm": "acts after the sum over replicas",
    "use_ema": "counts updates; averages the weights after their constraint",
    "ema_overwrite_frequency": "counts updates, not micro-batches",
    "loss_scale_factor": "same; sparse gradients too",
    "gradient_accumulation_steps": "schedule and average count updates; the remainder can be used",
    "momentum": "the learning rate is not in the buffer",
}
"""What differs in meaning. An argument that is not here means the same."""

LEFT_OUT = ("kwargs",)
"""Keras' catch-all, for options that its next versions may drop."""


def argument_rows(name: str) -> list[tuple[str, ...]]:
    """Of one class: argument, position, default in Keras, position and default here, and what differs."""
    theirs, ours = (_arguments(getattr(package, name)) for package in (keras.optimizers, ck))
    rows = []
    for argument, (position, default) in theirs.items():
        here = ours.get(argument)
        place = "missing" if here is None else "same" if here == (position, default) else f"{here[0]}, `{here[1]!r}`"
        rows.append((f"`{argument}`", str(position), f"`{default!r}`", place, NOTES.get(argument, "same")))
    return rows


def _arguments(cls: type) -> dict[str, tuple[int, Any]]:
    """Argument -> position (from 1) and default."""
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return {p.name: (i, p.default) for i, p in enumerate(parameters, 1) if p.name not in LEFT_OUT}


def arguments_table() -> str:
    """One table per class, as Markdown."""
    head = ("argument", "position", "default", "position and default here", "meaning here")
    parts = [f"### {name}\n\n{markdown(head, argument_rows(name))}" for name in NAMES]
    return "\n\n".join(parts)


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name of a row -> class and options, the same for both packages."""
    decay = keras.optimizers.schedules.CosineDecay(0.01, 50)
    return {
        "SGD": ("SGD", {}),
        "SGD, momentum": ("SGD", {"momentum": 0.9}),
        "SGD, Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
        "SGD, momentum, cosine schedule": ("SGD", {"learning_rate": decay, "momentum": 0.9}),
        "SGD, weight decay": ("SGD", {"weight_decay": 0.01}),
        "SGD, `clipnorm`": ("SGD", {"clipnorm": 0.1}),
        "SGD, `clipvalue`": ("SGD", {"clipvalue": 0.1}),
        "SGD, `global_clipnorm`": ("SGD", {"global_clipnorm": 0.1}),
        "SGD, accumulation of 4": ("SGD", {"gradient_accumulation_steps": 4}),
        "SGD, EMA": ("SGD", {"use_ema": True, "ema_momentum": 0.9}),
        "Adam": ("Adam", {}),
        "Adam, AMSGrad": ("Adam", {"amsgrad": True}),
        "Adam, cosine schedule": ("Adam", {"learning_rate": decay}),
        "Adam, accumulation of 4": ("Adam", {"gradient_accumulation_steps": 4}),
        "AdamW": ("AdamW", {}),
        "AdamW, `global_clipnorm`": ("AdamW", {"global_clipnorm": 0.1}),
        **{name: (name, {}) for name in OTHERS},
        "RMSprop, momentum": ("RMSprop", {"momentum": 0.9}),
        "Lamb, weight decay": ("Lamb", {"weight_decay": 0.1}),
    }


def trained(make: Callable[..., Any], options: Mapping[str, Any]) -> np.ndarray:
    """The weights of a small network after the updates."""
    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.weights])
    optimizer = make(**({"learning_rate": 0.01} | dict(options)))
    model.compile(optimizer, "mse")
    batches = UPDATES * (optimizer.gradient_accumulation_steps or 1)
    x = rng.normal(size=(8 * batches, 4)).astype("float32")
    y = (x @ [[1.0], [-2.0], [0.5], [3.0]]).astype("float32")
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def difference(name: str, options: Mapping[str, Any]) -> float:
    """Largest absolute difference between the weights of both packages."""
    ours, theirs = (trained(getattr(package, name), options) for package in (ck, keras.optimizers))
    return float(np.abs(ours - theirs).max())


def differences_table() -> str:
    """As Markdown."""
    rows = []
    for title, (name, options) in cases().items():
        measure = partial(difference, name)
        tiny = "" if name in WITHOUT_EPSILON else f"{measure({**options, 'epsilon': 1e-12}):.1e}"
        rows.append((title, f"{measure(options):.1e}", tiny))
    return markdown(("settings", "largest difference", "with `epsilon=1e-12` in both"), rows)


def markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ("---",) * len(head), *rows])


if __name__ == "__main__":
    print(arguments_table())
    if sys.argv[1:] != ["arguments"]:
        print(f"\n{differences_table()}")

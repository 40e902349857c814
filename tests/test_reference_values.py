"""Five steps against torch and optax, on every road that an update can take."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests.reference import Reference

DATA = json.loads((Path(__file__).parent / "data" / "optimizers.json").read_text())
OPTAX, TORCH, AMSGRAD = [key for key in DATA if key != "problem"]
LIMIT = 1e-6
"""Weights below 4 are rounded by up to 2.4e-7, five times."""

MOMENTUM = {"algorithm": "sgd", "momentum": 0.9}
ADAMW = {"algorithm": "adamw", "weight_decay": 0.1}
ENTRIES: dict[tuple[str, str], dict[str, Any]] = {
    (OPTAX, "sgd"): {"algorithm": "sgd"},
    (OPTAX, "sgd_mom.9"): MOMENTUM,
    (OPTAX, "sgd_nesterov.9"): MOMENTUM | {"nesterov": True},
    (OPTAX, "adam(.9,.999,1e-8)"): {"algorithm": "adam"},
    (OPTAX, "adamw wd.1"): ADAMW,
    (OPTAX, "adamw+clip1"): ADAMW | {"global_clipnorm": 0.5},
    (TORCH, "SGD m.9 damp.1"): MOMENTUM | {"dampening": 0.1},
    (TORCH, "SGD m.9 damp.1 wd.1(L2)"): MOMENTUM | {"dampening": 0.1, "weight_decay": 0.1, "weight_decay_mode": "l2"},
    (TORCH, "SGD nesterov wd5e-4"): MOMENTUM | {"nesterov": True, "weight_decay": 5e-4, "weight_decay_mode": "l2"},
    (TORCH, "Adam"): {"algorithm": "adam"},
    (TORCH, "Adam amsgrad"): {"algorithm": "adam", "amsgrad": True},
    (TORCH, "Adam wd.1(L2)"): {"algorithm": "adam", "weight_decay": 0.1, "weight_decay_mode": "l2"},
    (TORCH, "Adam maximize"): {"algorithm": "adam", "maximize": True},
    (TORCH, "AdamW wd.1"): ADAMW,
    (AMSGRAD, "Adam amsgrad"): {"algorithm": "adam", "amsgrad": True},
    (AMSGRAD, "Adam"): {"algorithm": "adam"},
}
"""(problem, entry) -> options; the data's note says that all entries have a rate of 0.01 and epsilon 1e-8."""

each_entry = pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda entry: entry[1] + (" 0.3^t" if entry[0] == AMSGRAD else "")
)


def gradients(problem: str) -> Iterator[np.ndarray]:
    """The five gradients, by the formula in the data."""
    i = np.arange(6.0).reshape(3, 2)
    for t in range(1, 6):
        yield 0.1 * (i + 1) * np.cos(0.7 * t + i) * (0.3**t if problem == AMSGRAD else 1.0)


def options_of(entry: tuple[str, str]) -> dict[str, Any]:
    """Options of an entry with the rate of the problem."""
    return ENTRIES[entry] | {"learning_rate": DATA["problem"]["learning_rate"]}


def eager(optimizer: ck.Optimizer, variable: keras.Variable) -> Callable[[Any], None]:
    """`apply` in a loop."""
    return lambda g: optimizer.apply([g], [variable])


def in_function(jit_compile: bool, optimizer: ck.Optimizer, variable: keras.Variable) -> Callable[[Any], None]:
    """`apply` inside a function of the caller."""
    import tensorflow as tf

    optimizer.build([variable])
    return tf.function(lambda g: optimizer.apply([g], [variable]), jit_compile=jit_compile, autograph=False)


def stateless(optimizer: ck.Optimizer, variable: keras.Variable) -> Callable[[Any], None]:
    """`jax.jit` of `stateless_apply`."""
    import jax

    optimizer.build([variable])
    step = jax.jit(optimizer.stateless_apply)

    def apply(g: Any) -> None:
        params, state = step([v.value for v in optimizer.variables], [g], [variable.value])
        for v, x in zip([variable, *optimizer.variables], [*params, *state], strict=True):
            v.assign(x)

    return apply


ROADS: dict[str, tuple[Callable[..., Callable[[Any], None]], dict[str, Any]]] = {
    "eager": (eager, {}),
    "function": (functools.partial(in_function, False), {}),
    "jitted function": (functools.partial(in_function, True), {}),
    "without jit": (eager, {"jit_compile": False}),
    "one variable at a time": (eager, {"foreach": False}),
    "stateless": (stateless, {}),
}
"""How the update is called, and options that must not change its numbers."""


def error(entry: tuple[str, str], road: str, dtype: str = "float32") -> float:
    """The largest difference to the expected weights after five updates."""
    call, more = ROADS[road]
    variable = keras.Variable(np.array(DATA["problem"]["p0"]), dtype=dtype)
    step = call(ck.Optimizer(**options_of(entry), **more), variable)
    for g in gradients(entry[0]):
        step(ops.convert_to_tensor(g, dtype))
    problem, name = entry
    return float(np.max(np.abs(ops.convert_to_numpy(variable) - np.array(DATA[problem][name]))))


@each_entry
def test_the_numpy_transcription(entry):
    reference = Reference({"w": np.array(DATA["problem"]["p0"])}, **options_of(entry))
    for g in gradients(entry[0]):
        reference.apply({"w": g})
    problem, name = entry
    np.testing.assert_allclose(reference.w["w"], DATA[problem][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("road", [road for road in ROADS if road != "stateless"])
@each_entry
def test_five_updates(entry, road):
    assert error(entry, road) < LIMIT


def test_amsgrad_is_not_adam_where_gradients_shrink():
    """The second problem tells the two apart, by more than the limit; the first does not."""
    first, second = (np.abs(np.subtract(DATA[key]["Adam"], DATA[key]["Adam amsgrad"])) for key in (TORCH, AMSGRAD))
    assert first.max() == 0 and second.max() > 5 * LIMIT

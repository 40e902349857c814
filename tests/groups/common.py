"""What the tests of rates, groups and depths share."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

import capibara_keras as ck


def named(*paths: str, shape: Sequence[int] = (2,)) -> list[keras.Variable]:
    """Variables with these paths, and random values."""
    rng, result = np.random.default_rng(0), []
    for path in paths:
        *scopes, name = path.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            result.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=name))
    assert [v.path for v in result] == list(paths)
    return result


def rates(variables: Sequence[keras.Variable], model: Any = None, **options: Any) -> dict[str, float]:
    """Path -> multiplier of the rate."""
    optimizer = ck.Optimizer("sgd", 1.0, jit_compile=False, **options)
    if model is not None:
        optimizer.attach(model=model)
    optimizer.build(variables)
    return {row.path: row.rate for row in optimizer.describe(print_fn=lambda text: None)}


def by_layer(found: Mapping[str, float], root: int = 1) -> dict[str, float]:
    """Layer -> multiplier, the same for all its variables."""
    result: dict[str, float] = {}
    for path, rate in found.items():
        layer = "/".join(path.split("/")[root:-1]) or path.split("/")[-1]
        assert result.setdefault(layer, rate) == rate, path
    return result


def nested() -> keras.Model:
    """A backbone of two layers in a functional model with a head."""
    parts = [keras.Input((4,)), layers.Dense(4, name="l1"), layers.Dense(4, name="l2")]
    backbone = keras.Sequential(parts, name="backbone")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(backbone(inputs)))


SHAPES = {"body/kernel": (3, 2), "body/bias": (2,), "head/kernel": (2, 2), "head/bias": (2,)}


def problem(updates: int, seed: int = 0) -> tuple[list[keras.Variable], list[dict[str, np.ndarray]]]:
    """Variables, and gradients by path, some of them large."""
    rng, ws = np.random.default_rng(seed), []
    for path, shape in SHAPES.items():
        with keras.name_scope(path.split("/")[0]):
            ws.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=path.split("/")[1]))
    sizes = 10 ** rng.uniform(-1, 1, updates)
    return ws, [{p: (s * rng.normal(size=shape)).astype("float32") for p, shape in SHAPES.items()} for s in sizes]

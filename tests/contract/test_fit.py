"""`fit`, `train_on_batch` and loops of one's own: all the same numbers, and they learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import capibara_keras as ck
from tests.models import batches, classifier, digits, regressor, values, variables

MODES: dict[str, dict[str, Any]] = {
    "jit": {"jit_compile": True},
    "no jit": {"jit_compile": False},
    "auto": {"jit_compile": "auto"},
    "eager": {"run_eagerly": True},
    "steps per execution": {"steps_per_execution": 3},
}
EPOCHS, BATCH = 8, 64


def trained(optimizer: Any, **mode: Any) -> keras.Model:
    """A classifier after `EPOCHS` epochs in fixed order."""
    model = classifier(optimizer, **mode)
    model.fit(*digits(), batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def by_hand() -> list[np.ndarray]:
    """The weights after the same updates with `train_on_batch`."""
    x, y = digits()
    model = classifier(ck.Adam(learning_rate=0.01))
    for _ in range(EPOCHS):
        for i in range(0, len(x), BATCH):
            model.train_on_batch(x[i : i + BATCH], y[i : i + BATCH])
    return values(model)


@pytest.mark.parametrize("mode", MODES)
def test_fit_learns_the_same_in_every_mode(mode: str, by_hand: list[np.ndarray]) -> None:
    """384 digits are linearly separable: 48 updates fit more than 95 % of them."""
    model = trained(ck.Adam(learning_rate=0.01), **MODES[mode])
    assert model.evaluate(*digits(), verbose=0)[1] > 0.95
    for a, b in zip(values(model), by_hand, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert int(model.optimizer.iterations) == EPOCHS * 6


POSITIONAL = {"SGD": (0.05, 0.9, True), "Adam": (0.01, 0.9, 0.99, 1e-15), "AdamW": (0.01, 0.1, 0.9, 0.99, 1e-15)}
"""Arguments in Keras' order; with an epsilon that is negligible, since ours is outside the bias correction."""


@pytest.mark.parametrize("name", POSITIONAL)
def test_swapping_the_import_changes_nothing(name: str) -> None:
    """Twenty updates of two variables, with a gradient that is 0 among the others."""
    ends = []
    for package in (ck, keras.optimizers):
        rng, ws = np.random.default_rng(1), variables((3, 2), (2,))
        optimizer = getattr(package, name)(*POSITIONAL[name])
        for step in range(20):
            grads = [rng.normal(size=w.shape) * (step != 5) for w in ws]
            optimizer.apply([keras.ops.array(g, "float32") for g in grads], ws)
        ends.append(values(ws))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


Gradients = Callable[[Any, Any], None]


def loop(model: keras.Model, optimizer: Any, method: str) -> Gradients:
    """A train step that hands gradients to `apply` or `apply_gradients`."""

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        grads = tape.gradient(loss, model.trainable_variables)
        if method == "apply":
            optimizer.apply(grads, model.trainable_variables)
        elif method == "apply, built":
            optimizer.apply(grads)
        else:
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    return step


def clipped_sgd(accumulation: int | None) -> ck.SGD:
    return ck.SGD(0.05, momentum=0.9, global_clipnorm=1.0, gradient_accumulation_steps=accumulation)


@cache
def on_batches(accumulation: int | None) -> list[np.ndarray]:
    """The weights after `train_on_batch` on each of the batches."""
    model = regressor(clipped_sgd(accumulation))
    for x, y in batches():
        model.train_on_batch(x, y)
    return values(model)


LOOPS = [
    ("eager", "apply", None),
    ("eager", "apply_gradients", 2),
    ("function", "apply", 2),
    ("xla", "apply, built", 2),
]


@pytest.mark.parametrize(("compiled", "method", "accumulation"), LOOPS)
def test_custom_loop_equals_train_on_batch(compiled: str, method: str, accumulation: int | None) -> None:
    model, optimizer = regressor(), clipped_sgd(accumulation)
    if method == "apply, built":
        optimizer.build(model.trainable_variables)
    step = loop(model, optimizer, method)
    if compiled != "eager":
        step = tf.function(step, jit_compile=compiled == "xla")
    for x, y in batches():
        step(x, y)
    for a, b in zip(values(model), on_batches(accumulation), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert int(optimizer.iterations) == 4 // (accumulation or 1)


def test_apply_gradients_returns_the_step_counter() -> None:
    """As `keras.optimizers` does, for code from tf.keras."""
    w = keras.Variable([1.0])
    assert int(ck.SGD().apply_gradients([(keras.ops.array([1.0]), w)])) == 1


def test_apply_with_an_empty_list_does_nothing() -> None:
    """As Keras: a model without trainable variables may be 'trained'."""
    optimizer = ck.SGD()
    optimizer.apply([], [])
    assert not optimizer.built

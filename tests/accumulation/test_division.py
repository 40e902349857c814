"""A window is divided once by what it has; windows by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from tests.accumulation.common import Y, accumulation_config, fit, sgd, tape_gradients, weight
from tests.models import regression, regressor, values

DIVISIONS: dict[str, Callable[[], Any]] = {
    "by the accumulator": lambda: sgd(3),
    "by scale_loss": lambda: sgd(3, loss_divided=True),
    "by scale_loss, in the seed's words": lambda: ck.Optimizer("sgd", 1.0, accumulation_steps=3, scale_loss=True),
    "by scale_loss, beside a loss scale": lambda: sgd(3, loss_divided=True, loss_scale_factor=8.0),
    "under LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(sgd(3)),
    "under LossScaleOptimizer, scale_loss": lambda: keras.optimizers.LossScaleOptimizer(sgd(3, loss_divided=True)),
}


@pytest.mark.parametrize("how", DIVISIONS)
def test_exactly_one_division_in_fit(how: str) -> None:
    """Windows 1, 2, 3 and 4, 5, 6 have means 2 and 5."""
    assert weight(fit(DIVISIONS[how](), run_eagerly=False)) == pytest.approx(-7.0)


@pytest.mark.parametrize("how", DIVISIONS)
def test_a_remainder_is_divided_by_what_it_has(how: str) -> None:
    """5 batches, windows 1, 2, 3 and 4, 5: -2 - 4.5; a loss that came divided by 3 is multiplied by 3/2."""
    model = fit(DIVISIONS[how](), ck.Attach(), y=Y[:5])
    assert weight(model) == pytest.approx(-6.5)


@pytest.mark.parametrize("divided", [False, True])
def test_without_normalising_gradients_are_summed(divided: bool) -> None:
    """-(1 + 2 + 3) - (4 + 5 + 6); with a loss that came divided by 3, a third."""
    optimizer = sgd(3, normalize_gradients=False, loss_divided=divided)
    assert weight(fit(optimizer)) == pytest.approx(-7.0 if divided else -21.0)


def test_without_normalising_weights_multiply() -> None:
    optimizer, w = sgd(2, normalize_gradients=False), keras.Variable([0.0])
    for share, g in ((1.0, 2.0), (3.0, 6.0)):
        optimizer.accumulate_gradients([ops.array([g])], [w], weight=share)
    optimizer.step_with_accumulated_gradients()
    assert w.numpy().item() == pytest.approx(-20.0)


@pytest.mark.parametrize("count", [16, 6])
def test_the_loop_of_the_document(count: int) -> None:
    """As written there, with a tape: the loss is divided by hand, and 16 micro-batches (or what there is of them)
    are the large batch."""
    x, y = regression()
    micro_batches = [(x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2]) for i in range(count)]
    model, other = regressor(), regressor()
    optimizer = ck.Optimizer("sgd", 1.0)

    optimizer.configure_gradient_accumulation(accumulation_config)
    for micro_batch in micro_batches:
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(model(micro_batch[0]) - micro_batch[1]))
            scaled_loss = loss / accumulation_config["accumulation_steps"]
        gradients = tape.gradient(scaled_loss, model.trainable_variables)
        optimizer.accumulate_gradients(gradients, model.trainable_variables)
    assert optimizer.pending_micro_batches == count
    optimizer.step_with_accumulated_gradients()
    optimizer.zero_grad()

    assert optimizer.pending_micro_batches == 0
    assert int(optimizer.iterations) == 1
    sgd().apply(tape_gradients(other, x[: 2 * count], y[: 2 * count]), other.trainable_variables)
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_accumulating_by_hand_needs_no_configuration() -> None:
    """The window is as long as the user makes it, also on an optimizer that has made updates already."""
    optimizer, w = ck.Optimizer("sgd", 1.0, jit_compile=False), keras.Variable([0.0])
    optimizer.step([ops.array([1.0])], [w])
    for g in (1.0, 2.0, 6.0):
        optimizer.accumulate_gradients([ops.array([g])], [w])
    assert w.numpy().item() == -1.0  # it never updates by itself
    optimizer.step_with_accumulated_gradients()
    assert w.numpy().item() == -4.0
    optimizer.step([ops.array([1.0])], [w])
    assert w.numpy().item() == -5.0


def test_accumulating_by_hand_never_updates() -> None:
    """Not even when the window is full."""
    optimizer, w = sgd(2), keras.Variable([0.0])
    for g in (1.0, 2.0, 6.0):
        optimizer.accumulate_gradients([ops.array([g])], [w])
    assert w.numpy().item() == 0.0
    optimizer.step_with_accumulated_gradients()
    assert w.numpy().item() == -3.0


def test_zero_grad_forgets_the_window() -> None:
    """In the middle of one, and of both ways to fill it; after an update there is nothing to forget."""
    optimizer, w = sgd(3), keras.Variable([0.0])
    optimizer.apply([ops.array([100.0])], [w])
    optimizer.accumulate_gradients([ops.array([100.0])], [w])
    optimizer.zero_grad()
    assert optimizer.pending_micro_batches == 0
    for g in (1.0, 2.0, 3.0):
        optimizer.apply([ops.array([g])], [w])
    assert w.numpy().item() == -2.0
    optimizer.zero_grad()
    optimizer.step_with_accumulated_gradients()
    assert w.numpy().item() == -2.0
    assert int(optimizer.iterations) == 1


def test_an_empty_window_makes_no_update() -> None:
    """Before the first gradient, and between two windows."""
    optimizer, w = ck.Optimizer("adam", jit_compile=False), keras.Variable([1.0])
    optimizer.step_with_accumulated_gradients()
    optimizer.zero_grad()
    assert optimizer.pending_micro_batches == 0
    optimizer.accumulate_gradients([ops.array([1.0])], [w])
    for _ in range(3):
        optimizer.step_with_accumulated_gradients()
    assert int(optimizer.iterations) == 1

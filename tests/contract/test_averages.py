"""Exponential moving averages of the weights, and constraints: both count updates."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests.models import line, regression, regressor, values

ONES = np.ones((12, 1), "float32")


def fitted(optimizer: Any, batch: int = 1, samples: int = 12, constraint: Any = None, **fit: Any) -> keras.Model:
    """`line` after an epoch in which the gradient is 1 each time."""
    model = line(optimizer, constraint=constraint)
    model.fit(ONES[:samples], ONES[:samples], batch_size=batch, verbose=0, **fit)
    return model


def averages(weights: list[Any], momentum: float) -> list[Any]:
    """Polyak averages; the first is the first weight itself."""
    result = weights[:1]
    for w in weights[1:]:
        result.append(momentum * result[-1] + (1 - momentum) * w)
    return result


@pytest.mark.parametrize("accumulation", [None, 4])
def test_fit_ends_with_the_average_over_updates(accumulation: int | None) -> None:
    """Keras' contract: after `fit`, the weights are the averages. -1, -2, -3 average to -2.25."""
    every = accumulation or 1
    model = fitted(
        ck.SGD(1.0, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=accumulation), samples=3 * every
    )
    assert values(model)[0].item() == averages([-1.0, -2.0, -3.0], 0.5)[-1] == -2.25


@pytest.mark.parametrize("accumulation", [None, 3])
def test_overwriting_counts_updates(accumulation: int | None) -> None:
    """-1; then -2 and its average -1.5 becomes the weight; -2.5; -3.5 becomes its average."""
    every = accumulation or 1
    optimizer = ck.SGD(
        1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2, gradient_accumulation_steps=accumulation
    )
    seen = []
    model = line(optimizer)
    for _ in range(4 * every):
        model.train_on_batch(ONES[:1], ONES[:1])
        seen.append(values(model)[0].item())
    averaged = [-1.0, -1.5, (-1.5 - 2.5) / 2]  # after three updates
    averaged.append((averaged[-1] - 3.5) / 2)
    assert seen[every - 1 :: every] == [-1.0, -1.5, -2.5, averaged[3]]
    assert seen[: every - 1] == [0.0] * (every - 1)  # a micro-batch changes nothing


def test_a_skipped_update_is_not_averaged() -> None:
    w = keras.Variable([0.0])
    optimizer = ck.SGD(1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3, jit_compile=False)
    for g in [1.0, float("nan"), 1.0, float("inf"), 1.0]:
        optimizer.apply([ops.array([g])], [w])
    assert w.numpy().tolist() == [-2.25]  # overwritten at the third update, not at the third call


X, Y = regression()


def averaged_sgd(**options: Any) -> ck.SGD:
    return ck.SGD(0.1, use_ema=True, ema_momentum=0.8, jit_compile=False, **options)


@cache
def plain_history() -> list[np.ndarray]:
    """The first weight after each of four updates without averages: two epochs of two batches."""
    model, history = regressor(ck.SGD(0.1, jit_compile=False)), []
    for start in (0, 16, 0, 16):
        model.train_on_batch(X[start : start + 16], Y[start : start + 16])
        history.append(values(model)[0])
    return history


def test_swap_ema_weights_evaluates_with_the_averages() -> None:
    """Validation runs on the averages, training goes on from the weights."""
    during: list[np.ndarray] = []
    before: list[np.ndarray] = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: before.append(values(model)[0]))
    watch.on_test_batch_begin = lambda batch, logs=None: during.append(values(model)[0])
    model = regressor(averaged_sgd())
    model.fit(
        X,
        Y,
        batch_size=16,
        epochs=2,
        shuffle=False,
        validation_data=(X, Y),
        validation_batch_size=32,
        verbose=0,
        callbacks=[keras.callbacks.SwapEMAWeights(), watch],
    )
    averaged = averages(plain_history(), 0.8)
    np.testing.assert_allclose(before, plain_history(), atol=1e-6)
    np.testing.assert_allclose(during, averaged[1::2], atol=1e-6)
    np.testing.assert_allclose(values(model)[0], averaged[-1], atol=1e-6)


def test_swap_ema_weights_on_epochs_saves_the_averages(tmp_path: Any) -> None:
    """With `swap_on_epoch`, a ModelCheckpoint after it holds averages, and they remain in the end."""
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    model = regressor(averaged_sgd())
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0, callbacks=[swap, checkpoint])
    averaged = averages(plain_history(), 0.8)
    for epoch, expected in ((1, averaged[1]), (2, averaged[3])):
        saved = regressor()
        saved.load_weights(tmp_path / f"{epoch}.weights.h5")
        np.testing.assert_allclose(values(saved)[0], expected, atol=1e-6)
    np.testing.assert_allclose(values(model)[0], averaged[-1], atol=1e-6)


def test_swap_ema_weights_behind_a_callback_that_flushes() -> None:
    """The micro-batches that are left come into the average, as without swapping."""
    found = []
    for swap in ([], [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]):
        model = regressor(averaged_sgd(gradient_accumulation_steps=3))
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[ck.Attach(), *swap])
        assert model.optimizer.pending_micro_batches == 0
        found.append(values(model))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


sgd = partial(ck.SGD, jit_compile=False)


def test_constraint_holds_after_each_update() -> None:
    assert values(fitted(sgd(1.0), samples=2, constraint="non_neg"))[0].item() == 0.0
    assert values(fitted(sgd(1.0), samples=2))[0].item() == -2.0  # the same without


def test_constraint_acts_once_per_update() -> None:
    """One that adds 1 shows how often: two updates of three micro-batches each, 0 - 1 + 1 - 1 + 1."""
    seen = fitted(sgd(1.0, gradient_accumulation_steps=3), samples=6, constraint=lambda w: w + 1.0)
    assert values(seen)[0].item() == 0.0


def test_constraint_does_not_act_in_a_skipped_update() -> None:
    w = keras.Variable([-1.0])
    w.constraint = keras.constraints.NonNeg()
    optimizer = ck.SGD(1.0, jit_compile=False)
    optimizer.apply([ops.array([float("nan")])], [w])
    assert w.numpy().tolist() == [-1.0]
    optimizer.apply([ops.array([0.5])], [w])
    assert w.numpy().tolist() == [0.0]


def test_averages_are_of_the_constrained_weights() -> None:
    model = fitted(sgd(1.0, use_ema=True, ema_momentum=0.5), samples=4, constraint="non_neg")
    assert values(model)[0].item() == 0.0


def test_update_norm_includes_the_constraint() -> None:
    """What changed is what is reported: from 3 to the unit ball is 2, not the 0.5 of the gradient step."""
    w = keras.Variable([3.0])
    w.constraint = keras.constraints.MaxNorm(1.0, axis=0)
    record = ck.SGD(1.0, jit_compile=False).step([ops.array([0.5])], [w], return_metrics=True)
    assert record is not None and record.update_norm == pytest.approx(2.0, rel=1e-6)

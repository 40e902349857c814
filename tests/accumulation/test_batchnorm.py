"""Statistics of batch normalisation over a window."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import capibara_keras as ck
from tests.accumulation.common import normalised, sgd
from tests.models import values


def running(model: keras.Model) -> np.ndarray:
    """Mean and variance that the first layer keeps."""
    return np.concatenate(values(model.layers[0].non_trainable_variables[:2]))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_window_moves_the_statistics_like_one_large_batch(k: int) -> None:
    """K micro-batches of the same statistics: momentum^(1/K), K times, is momentum."""
    x = np.array([[1.0, -4.0], [3.0, 6.0]], "float32")
    one, many = normalised(), normalised()
    ck.sync_batchnorm(many, accumulation_steps=k)
    one(x, training=True)
    for _ in range(k):
        many(x, training=True)
    np.testing.assert_allclose(running(many), running(one), rtol=1e-5)
    np.testing.assert_allclose(running(one), [0.2, 0.1, 0.9 + 0.1, 0.9 + 2.5], rtol=1e-5)


def test_what_changed_is_reported() -> None:
    """A record per layer, found in nested models too; a second call starts from the layer's own momentum."""
    model = keras.Sequential([keras.Input((2,)), normalised(0.81), layers.Dense(1)])
    changes = ck.sync_batchnorm(model, accumulation_steps=2)
    assert {c.layer for c in changes} == {"bn0", "bn1"}
    assert [c["momentum"] for c in changes] == pytest.approx([0.9, 0.9])
    assert [c.momentum_before for c in changes] == [0.81, 0.81]
    assert all(c.synchronized for c in changes)
    again = ck.sync_batchnorm(model, accumulation_steps=4)
    assert [c.momentum for c in again] == pytest.approx([0.81**0.25] * 2)
    assert [c.momentum_before for c in again] == pytest.approx([0.9] * 2)
    back = ck.sync_batchnorm(model, accumulation_steps=1)
    assert [c.momentum for c in back] == [0.81, 0.81]


def test_a_saved_model_is_adjusted_once(tmp_path: Path) -> None:
    """Not a second time where it is loaded, or copied, and trained on."""
    model = normalised(0.81)
    model.compile(sgd(2, sync_batchnorm=True), "mse")
    copies = []
    for _ in range(2):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=2, verbose=0, callbacks=[ck.Attach()])
        model.save(tmp_path / "m.keras")
        copies.append(keras.models.clone_model(model))
        model = keras.saving.load_model(tmp_path / "m.keras")
    for each in (model, *copies):
        assert [c.momentum_before for c in ck.sync_batchnorm(each, 2)] == [0.81, 0.81]
        assert [c.momentum for c in ck.sync_batchnorm(each, 2)] == pytest.approx([0.9, 0.9])


def test_synchronising_can_be_left_out() -> None:
    model = normalised()
    assert not any(c.synchronized for c in ck.sync_batchnorm(model, 4, synchronize=False))
    assert not any(layer.synchronized for layer in model.layers if hasattr(layer, "synchronized"))


def test_in_fit_the_callback_does_it() -> None:
    """And anew when K has changed: 8 batches of the same two rows each time."""
    x = np.tile(np.array([[1.0, -4.0], [3.0, 6.0]], "float32"), (8, 1))
    model = normalised()
    optimizer = sgd(4, rate=0.0, sync_batchnorm=True)
    model.compile(optimizer, "mse")
    expected = np.array([0.0, 0.0, 1.0, 1.0])
    for k in (4, 2):
        optimizer.gradient_accumulation_steps = k
        model.fit(x, x[:, :1], batch_size=2, verbose=0, shuffle=False, callbacks=[ck.Attach()])
        expected = expected * 0.9 ** (8 / k) + np.array([2.0, 1.0, 1.0, 25.0]) * (1 - 0.9 ** (8 / k))
        np.testing.assert_allclose(running(model), expected, rtol=1e-4)


def test_without_the_option_layers_are_left_alone() -> None:
    model = normalised()
    model.compile(sgd(4), "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=1, verbose=0, callbacks=[ck.Attach()])
    assert [layer.momentum for layer in model.layers if hasattr(layer, "momentum")] == [0.9, 0.9]

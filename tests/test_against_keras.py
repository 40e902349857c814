"""Where Keras' optimizers are wrong and ours are right: each test shows both numbers.

A test that fails on the side of Keras says that Keras has changed: the docs that mention it can be shortened.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from tests.models import line, values

NAN = float("nan")
PACKAGES = (keras.optimizers, ck)
"""Keras' classes and ours, of the same names."""


def walk(optimizer: Any, gradients: Sequence[float], dtype: str = "float32") -> list[float]:
    """The values of one weight, 0 at first, after each of the gradients."""
    return walk_of(keras.Variable(np.zeros(1), dtype=dtype), optimizer, gradients)


def walk_of(w: keras.Variable, optimizer: Any, gradients: Sequence[float]) -> list[float]:
    seen = []
    for g in gradients:
        optimizer.apply([ops.cast(ops.array([g]), w.dtype)], [w])
        seen.append(float(ops.convert_to_numpy(ops.cast(w, "float32"))[0]))
    return seen


# Sparse gradients --------------------------------------------------------------------------------------


def rows() -> tf.IndexedSlices:
    """The gradient of an embedding of the tokens 0, 0 and 2."""
    return tf.IndexedSlices(tf.ones((3, 1)), tf.constant([0, 0, 2]), tf.constant([3, 1]))


def test_duplicate_rows_are_summed() -> None:
    """Three steps of 0.01 with a constant gradient: Adam goes 0.03, whatever the gradient's scale. Keras adds
    the squares of the two parts instead of squaring their sum: 2 / sqrt(1 + 1) times as far."""
    ends = []
    for package in PACKAGES:
        w, optimizer = keras.Variable(np.ones((3, 1), "float32")), package.Adam(0.01)
        for _ in range(3):
            optimizer.apply([rows()], [w])
        ends.append(w.numpy().ravel())
    dense, optimizer = keras.Variable(np.ones((3, 1), "float32")), keras.optimizers.Adam(0.01)
    for _ in range(3):
        optimizer.apply([tf.convert_to_tensor(rows())], [dense])
    assert ends[0][0] == pytest.approx(1 - 0.03 * 2**0.5, abs=1e-5)  # 0.9576
    assert ends[1][0] == pytest.approx(0.97, abs=1e-6)
    assert ends[1][0] == pytest.approx(dense.numpy()[0, 0], abs=1e-6)
    assert ends[1][1] == 1.0


def test_loss_scale_factor_with_sparse_gradients() -> None:
    w = keras.Variable(np.zeros((3, 1), "float32"))
    with pytest.raises(TypeError, match="unsupported operand"):
        keras.optimizers.SGD(1.0, loss_scale_factor=2.0).apply([rows()], [w])
    ck.SGD(1.0, loss_scale_factor=2.0).apply([rows()], [w])
    assert w.numpy().ravel().tolist() == [-1.0, 0.0, -0.5]


# Accumulation ------------------------------------------------------------------------------------------


def test_schedules_count_updates() -> None:
    """40 micro-batches of 4 are 10 updates: 0.9 of a rate that falls to 0 in 100 updates."""
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 100, end_learning_rate=0.0)
    stock, ours = (package.SGD(decay, gradient_accumulation_steps=4) for package in PACKAGES)
    for optimizer in (stock, ours):
        walk(optimizer, [1.0] * 40)
    assert float(stock.learning_rate) == pytest.approx(0.6)
    assert float(ours.learning_rate) == pytest.approx(0.9)


def average(optimizer: Any, gradients: Sequence[float], w: keras.Variable) -> float:
    """The moving average of a weight, as `fit` would leave it in the model."""
    walk_of(w, optimizer, gradients)
    optimizer.finalize_variable_values([w])
    return float(w.numpy()[0])


def test_averages_count_updates() -> None:
    """-1, -2, -3 with momentum 1/2 average to -2.25; Keras also averages on the nine other micro-batches."""
    options = dict(use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=4)
    stock, ours = (
        average(package.SGD(1.0, **options), [1.0] * 12, keras.Variable(np.zeros(1, "float32"))) for package in PACKAGES
    )
    assert stock == -2.46875
    assert ours == -2.25


def test_overwriting_with_the_average_waits_for_an_update() -> None:
    """Every second update; Keras does it at a micro-batch, too, if it follows an odd one."""
    options = dict(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2, gradient_accumulation_steps=2)
    stock, ours = (walk(package.SGD(1.0, **options), [1.0] * 8) for package in PACKAGES)
    assert stock[5:7] == [-2.5, -2.25]  # the seventh is a micro-batch in mid-window
    assert ours == [0.0, -1.0, -1.0, -1.5, -1.5, -2.5, -2.5, -2.75]


def test_constraints_wait_for_an_update() -> None:
    """One that adds 1 shows it: three micro-batches, one update."""
    ends = []
    for package in PACKAGES:
        w = keras.Variable(np.zeros(1, "float32"))
        w.constraint = lambda x: x + 1.0
        ends.append(walk_of(w, package.SGD(0.0, gradient_accumulation_steps=3), [1.0] * 3))
    assert ends[0] == [1.0, 2.0, 3.0]
    assert ends[1] == [0.0, 0.0, 1.0]


def test_averages_are_of_constrained_weights() -> None:
    """A weight that must not be negative, and is pushed down by 2: its average is not -2."""
    ends = []
    for package in PACKAGES:
        w = keras.Variable(np.zeros(1, "float32"))
        w.constraint = keras.constraints.NonNeg()
        ends.append(average(package.SGD(1.0, use_ema=True), [2.0], w))
    assert ends == [-2.0, 0.0]


def test_a_gradient_that_is_missing_last_keeps_what_was_accumulated() -> None:
    """Two micro-batches with gradients 1 and none: the mean of the window is 1/2, not nothing."""
    ends = []
    for package in PACKAGES:
        a, b = keras.Variable([0.0]), keras.Variable([0.0])
        optimizer = package.SGD(1.0, gradient_accumulation_steps=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both warn of the None
            for last in (ops.ones(1), None):
                optimizer.apply([last, ops.ones(1)], [a, b])
        ends.append([a.numpy().item(), b.numpy().item()])
    assert ends[0] == [0.0, -1.0]
    assert ends[1] == [-0.5, -1.0]


def resumed(package: Any, saved_every: int, every: int, folder: Path) -> tuple[list[int], list[float]]:
    """Six micro-batches, then a load into an optimizer with another window, and micro-batches until an update."""
    ones = np.ones((1, 1), "float32")
    first = line(package.SGD(1.0, gradient_accumulation_steps=saved_every))
    for _ in range(6):
        first.train_on_batch(ones, ones)
    path = folder / f"{package.__name__}.weights.h5"
    first.save_weights(path)
    second = line(package.SGD(1.0, gradient_accumulation_steps=every))
    second.optimizer.build(second.trainable_variables)
    second.load_weights(path)
    counts = [int(m.optimizer.iterations) for m in (first, second)]
    weights = [values(second)[0].item()]
    while weights[-1] == weights[0] and len(weights) < 9:
        second.train_on_batch(ones, 4 * ones)
        weights.append(values(second)[0].item())
    return counts, weights


def test_another_window_on_loading(tmp_path: Path) -> None:
    """Six micro-batches with K=4: one update, two gradients of 1 waiting. Loaded with K=5, three of 4 complete
    the window: its mean is (1 + 1 + 4 + 4 + 4) / 5. Keras reads the counter as 6 of 5, and divides by 5 what
    it has after four more."""
    counts, weights = resumed(keras.optimizers, 4, 5, tmp_path)
    assert counts == [1, 1]
    assert weights[-1] == pytest.approx(-1 - (1 + 1 + 4 * 4) / 5)  # a sum of six, divided by five
    counts, weights = resumed(ck, 4, 5, tmp_path)
    assert counts == [1, 1]
    assert weights == pytest.approx([-1.0, -1.0, -1.0, -1.0 - (1 + 1 + 4 + 4 + 4) / 5])


def test_the_update_counter_does_not_move_on_loading(tmp_path: Path) -> None:
    """One update stays one update, and the next micro-batch completes a window of two that has two already."""
    counts, _ = resumed(keras.optimizers, 4, 2, tmp_path)
    assert counts == [1, 3]
    counts, weights = resumed(ck, 4, 2, tmp_path)
    assert counts == [1, 1]
    assert weights == pytest.approx([-1.0, -1.0 - (1 + 1 + 4) / 3])


# Gradients that are not finite ---------------------------------------------------------------------------


def test_a_nan_does_not_spread() -> None:
    """With a global norm, one NaN reaches every variable in Keras, and stays."""
    ends = []
    for package in PACKAGES:
        a, b = keras.Variable([0.0]), keras.Variable([0.0])
        optimizer = package.Adam(0.5, global_clipnorm=1.0)
        optimizer.apply([ops.array([1.0]), ops.array([NAN])], [a, b])
        optimizer.apply([ops.array([1.0]), ops.array([1.0])], [a, b])
        ends.append([a.numpy().item(), b.numpy().item()])
    assert np.isnan(ends[0]).all()
    assert ends[1] == pytest.approx([-0.5, -0.5], rel=1e-6)  # one step: the first did not happen


def test_a_nan_in_a_micro_batch_costs_its_window_and_no_more() -> None:
    gradients = [1.0, NAN, 1.0, 1.0]
    stock, ours = (walk(package.SGD(1.0, gradient_accumulation_steps=2), gradients) for package in PACKAGES)
    np.testing.assert_array_equal(stock, [0.0, NAN, NAN, NAN])
    assert ours == [0.0, 0.0, 0.0, -1.0]


# State -------------------------------------------------------------------------------------------------


def test_the_state_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    """Keras reads a momentum of SGD as one of Lion, and an AdaGrad accumulator as an RMSprop velocity."""
    ones = np.ones((1, 1), "float32")
    path = tmp_path / "m.weights.h5"
    stock = line(keras.optimizers.SGD(0.5, momentum=0.5))
    stock.train_on_batch(ones, 3 * ones)
    stock.save_weights(path)
    lion = line(keras.optimizers.Lion(0.5))
    lion.optimizer.build(lion.trainable_variables)
    lion.load_weights(path)
    assert values(lion.optimizer)[-1].item() == -1.5  # what SGD kept: momentum times rate, with its sign

    ours = line(ck.SGD(0.5, momentum=0.5))
    ours.train_on_batch(ones, 3 * ones)
    ours.save_weights(path)
    adam = line(ck.Adam(0.5))
    adam.optimizer.build(adam.trainable_variables)
    before = values(adam.optimizer)
    with pytest.raises(ValueError, match="saved by algorithm 'sgd', this is 'adam'"):
        adam.load_weights(path)
    for a, b in zip(values(adam.optimizer), before, strict=True):
        np.testing.assert_array_equal(a, b)


# Precision and formulas --------------------------------------------------------------------------------


def test_adam_moves_in_bfloat16() -> None:
    """In bfloat16, beta_2 = 0.999 is 1: Keras' second moment has a weight of 0, its bias correction is 0."""
    stock, ours = (walk(package.Adam(0.125), [1.0] * 4, dtype="bfloat16") for package in PACKAGES)
    assert stock == [0.0] * 4
    assert ours == pytest.approx([-0.125, -0.25, -0.375, -0.5], rel=0.01)


def test_epsilon_is_outside_the_bias_correction() -> None:
    """For g = epsilon the first step is half the rate; Keras compares epsilon with sqrt(0.001) g."""
    stock, ours = (walk(package.Adam(1e-3, epsilon=1e-8), [1e-8])[0] for package in PACKAGES)
    assert stock == pytest.approx(-3.1e-5, rel=0.02)
    assert ours == pytest.approx(-5e-4, rel=1e-5)


def test_a_drop_of_the_rate_acts_at_once() -> None:
    """With the rate inside the momentum buffer, Keras goes on for ten steps after it has become 0."""
    ends = []
    for package in PACKAGES:
        optimizer, w = package.SGD(1.0, momentum=0.5), keras.Variable([0.0])
        walk_of(w, optimizer, [1.0])
        optimizer.learning_rate = 0.0
        ends.append(walk_of(w, optimizer, [1.0, 1.0]))
    assert ends[0] == [-1.5, -1.75]
    assert ends[1] == [-1.0, -1.0]


# Options -----------------------------------------------------------------------------------------------


def shrunk(optimizer: Any) -> list[str]:
    """Which of three variables decay, by name."""
    with keras.name_scope("norm"):
        ws = [keras.Variable([1.0], name=name) for name in ("scale", "bias", "kernel")]
    optimizer.apply([ops.zeros(1) for _ in ws], ws)
    return [w.name for w in ws if w.numpy().item() < 1.0]


def test_exclusions_from_weight_decay_add_up() -> None:
    left = []
    for package in PACKAGES:
        optimizer = package.AdamW(0.5, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["scale"])
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        left.append(shrunk(optimizer))
    assert left == [["scale", "kernel"], ["kernel"]]


def test_exclusions_from_weight_decay_are_in_the_config() -> None:
    left = []
    for package in PACKAGES:
        optimizer = package.AdamW(0.5, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["scale"])
        left.append(shrunk(keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))))
    assert left == [["scale", "bias", "kernel"], ["bias", "kernel"]]


def test_exclusions_from_weight_decay_see_the_path() -> None:
    """Keras matches `scale:0` on TensorFlow and `scale` on JAX; the layer's name is in neither."""
    left = []
    for package in PACKAGES:
        optimizer = package.AdamW(0.5, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["norm/scale$"])
        left.append(shrunk(optimizer))
    assert left == [["scale", "bias", "kernel"], ["bias", "kernel"]]


def test_excluding_after_build_is_refused() -> None:
    """Keras accepts it, and decays on: what it has decided before stays in a cache of the compiled step."""
    w = keras.Variable([1.0], name="scale")
    stock, ours = (package.AdamW(0.5, weight_decay=0.5) for package in PACKAGES)
    step = tf.function(lambda: stock.apply([tf.zeros(1)], [w]))
    step()
    stock.exclude_from_weight_decay(var_names=["scale"])
    step()
    assert w.numpy().item() == 0.75**2
    ours.build([w])
    with pytest.raises(ck.ConfigError, match="built already"):
        ours.exclude_from_weight_decay(var_names=["scale"])


def test_a_rate_can_be_assigned_on_top_of_a_schedule() -> None:
    decay = keras.optimizers.schedules.PolynomialDecay(1.0, 10, end_learning_rate=0.0)
    stock, ours = (package.SGD(decay) for package in PACKAGES)
    with pytest.raises(TypeError, match="not settable"):
        stock.learning_rate = 0.5
    ours.learning_rate = 0.5
    assert walk(ours, [1.0, 1.0]) == pytest.approx([-0.5, -0.95])  # half of 1, half of 0.9


@pytest.mark.parametrize("rate", [1, np.float32(1.0)])
def test_whole_and_numpy_rates_are_accepted(rate: Any) -> None:
    with pytest.raises(ValueError, match="learning_rate` should be float"):
        keras.optimizers.SGD(rate)
    assert walk(ck.SGD(rate), [1.0]) == [-1.0]

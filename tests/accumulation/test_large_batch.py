"""A window of micro-batches gives the update of one large batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from capibara_keras.schedules import CosineWithWarmup
from tests.accumulation.common import RULES, sgd, tape_gradients
from tests.models import regression, regressor, values


@pytest.mark.parametrize("jit_compile", [True, False])
def test_the_accumulated_gradient_is_that_of_the_large_batch(jit_compile: bool) -> None:
    """Gradient descent with rate 1 shows it: 4 micro-batches of 8 against 32 examples."""
    x, y = regression()
    one, two = regressor(), regressor()
    optimizers = sgd(4, jit_compile=jit_compile), sgd(jit_compile=jit_compile)
    for i in range(4):
        grads = tape_gradients(one, x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8])
        optimizers[0].apply(grads, one.trainable_variables)
    optimizers[1].apply(tape_gradients(two, x, y), two.trainable_variables)
    assert int(optimizers[0].iterations) == int(optimizers[1].iterations) == 1
    for a, b in zip(values(one), values(two), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    norms = [o.statistics().gradient_norm for o in optimizers]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_one_update_equals_that_of_the_large_batch(rule: str) -> None:
    """Through `fit`, once for a whole batch and once for its micro-batches."""
    x, y = regression()
    models = [
        regressor(ck.Optimizer(learning_rate=0.1, gradient_accumulation_steps=k, jit_compile=False, **RULES[rule]))
        for k in (None, 4)
    ]
    for model, size in zip(models, (32, 8), strict=True):
        model.fit(x, y, batch_size=size, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 1
    for a, b in zip(*map(values, models), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


K, WINDOWS = 4, 10
LENGTHS = [(5, 1, 8, 2), (3, 3, 3, 3), (1, 8, 1, 8), (7, 6, 5, 4), (2, 2, 8, 1)]
"""Tokens in the micro-batches of five windows; more windows repeat them."""


def windows() -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Micro-batches of unequal size, four to a window."""
    rng = np.random.default_rng(0)
    truth = np.array([[1.0], [-2.0], [0.5], [3.0]])
    result = []
    for w in range(WINDOWS):
        xs = [rng.normal(size=(n, 4)).astype("float32") for n in LENGTHS[w % 5]]
        result.append([(x, (x @ truth + rng.normal(size=(len(x), 1))).astype("float32")) for x in xs])
    return result


class Padded(keras.Model):
    """Two dense layers that train on padded batches: the last column of x is 1 where an example is real.

    The loss is the mean over a batch's real examples; their number is its weight.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = regressor()
        self.traces = 0
        self.rates: list[float] = []

    def call(self, x: Any) -> Any:
        return self.net(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        self.traces += 1
        x, y = data
        real = x[:, -1:]
        count = ops.sum(real)
        with tf.GradientTape() as tape:
            loss = ops.sum(real * ops.square(self.net(x[:, :-1]) - y)) / count
            scaled = self.optimizer.scale_loss(loss)
        grads = tape.gradient(scaled, self.net.trainable_variables)
        self.optimizer.weigh(count)
        self.optimizer.apply_gradients(zip(grads, self.net.trainable_variables, strict=True))
        return {"loss": loss}


def padded(batches: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """All batches one after the other, each filled up to `size`."""
    xs, ys = [], []
    for x, y in batches:
        xs.append(np.pad(np.c_[x, np.ones(len(x))], ((0, size - len(x)), (0, 0))))
        ys.append(np.pad(y, ((0, size - len(y)), (0, 0))))
    return np.concatenate(xs).astype("float32"), np.concatenate(ys).astype("float32")


def whole(window: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """A window's examples in one batch."""
    return np.concatenate([x for x, _ in window]), np.concatenate([y for _, y in window])


def unequal(rule: str, k: int | None = None) -> ck.Optimizer:
    """With a schedule, and with a clip limit that most updates reach."""
    schedule = CosineWithWarmup(0.1, total_steps=40, warmup_steps=5)
    options = RULES[rule] | {"global_clipnorm": 3.0, "gradient_accumulation_steps": k, "jit_compile": False}
    return ck.Optimizer(learning_rate=schedule, **options)


class Trace(keras.callbacks.Callback):
    """(rate, gradient norm, clipped) of each update."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[float, float, bool]] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        updates = int(self.model.optimizer.iterations)
        if updates:
            record = self.model.optimizer.statistics()
            self.seen[updates] = (record.learning_rate, record.gradient_norm, record.clipped)


@pytest.fixture(scope="module", params=RULES)
def large(request: pytest.FixtureRequest) -> tuple[str, list[np.ndarray], np.ndarray]:
    """Rule, weights after 50 updates with whole windows as batches, and their trace."""
    model, trace = Padded(), Trace()
    model.compile(unequal(request.param))
    x, y = padded([whole(window) for window in windows()], 32)
    model.fit(x, y, batch_size=32, epochs=5, shuffle=False, verbose=0, callbacks=[trace])
    seen = np.array(list(trace.seen.values()), "float64")
    assert len(seen) == 50
    assert 10 < seen[:, 2].sum() < 45  # clipping acts, and not always
    return request.param, values(model), seen


def test_50_updates_of_unequal_micro_batches_in_fit(large: Any) -> None:
    """Weighted by their numbers of examples, micro-batches are the large batch: weights, rates, norms, clipping."""
    rule, weights, expected = large
    model, trace = Padded(), Trace()
    model.compile(unequal(rule, K))
    x, y = padded([micro for window in windows() for micro in window], 8)
    model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0, callbacks=[trace])
    for a, b in zip(values(model), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.array(list(trace.seen.values()), "float64"), expected, rtol=1e-5, atol=1e-7)


def test_50_updates_of_unequal_micro_batches_in_a_loop(large: Any) -> None:
    """`accumulate_gradients` takes the weight itself, as a number or a tensor."""
    rule, weights, expected = large
    net, optimizer = regressor(), unequal(rule, K)
    gradients = tf.function(lambda x, y: tape_gradients(net, x, y), reduce_retracing=True)
    rates = []
    for _ in range(5):
        for window in windows():
            for i, (x, y) in enumerate(window):
                weight = len(x) if i % 2 else tf.constant(len(x), "float32")
                optimizer.accumulate_gradients(gradients(x, y), net.trainable_variables, weight=weight)
            optimizer.step_with_accumulated_gradients()
            optimizer.zero_grad()
            rates.append(optimizer.statistics().learning_rate)
    for a, b in zip(values(net), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    np.testing.assert_allclose(rates, expected[:, 0], rtol=0, atol=1e-7)
    assert int(optimizer.iterations) == 50


def test_weights_are_relative() -> None:
    """(1·2 + 3·6) / 4 = 5; and the next window starts from nothing, with weight 1 where none is given."""
    optimizer, w = sgd(2), keras.Variable([0.0])
    for weight, g in ((1.0, 2.0), (3.0, 6.0), (None, 1.0), (None, 2.0)):
        if weight is not None:
            optimizer.weigh(weight)
        optimizer.apply([ops.array([g])], [w])
    assert w.numpy().item() == pytest.approx(-5 - 1.5)


def test_a_weight_changes_nothing_where_a_micro_batch_is_an_update() -> None:
    optimizer, w = sgd(), keras.Variable([0.0])
    optimizer.weigh(7.0)
    optimizer.apply([ops.array([2.0])], [w])
    assert w.numpy().item() == -2.0


def test_a_window_of_weight_zero_is_a_gradient_of_zero() -> None:
    """Batches that are all padding: no division by 0."""
    optimizer, w = sgd(2), keras.Variable([1.0])
    for _ in range(2):
        optimizer.accumulate_gradients([ops.array([5.0])], [w], weight=0)
    optimizer.step_with_accumulated_gradients()
    assert w.numpy().item() == 1.0


@pytest.mark.parametrize("weight", [-1.0, float("nan"), True])
def test_a_bad_weight(weight: Any) -> None:
    optimizer, w = sgd(2), keras.Variable([1.0])
    with pytest.raises(ck.ConfigError, match="weight: expected a number >= 0, received"):
        optimizer.weigh(weight)
    with pytest.raises(ck.ConfigError, match="weight: expected a number >= 0, received"):
        optimizer.accumulate_gradients([ops.ones(1)], [w], weight=weight)

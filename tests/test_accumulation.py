"""Micro-batches: what a window is, what it is divided by, and what becomes of the last ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import capibara_keras as ck
from capibara_keras.schedules import CosineWithWarmup
from tests.models import line, regression, regressor, values, variables

RULES: dict[str, dict[str, Any]] = {
    "adam": {"algorithm": "adam", "epsilon": 1e-3},
    "adamw": {"algorithm": "adamw", "epsilon": 1e-3, "weight_decay": 0.1},
    "sgd": {"algorithm": "sgd", "momentum": 0.9, "weight_decay": 0.01},
}
"""With an epsilon at which Adam does not blow up the rounding of gradients that happen to be near 0."""


def scalar(optimizer: Any, *gradients: float, flush: bool = False) -> float:
    """Where a weight that begins at 0 is after `apply` with these gradients."""
    w = keras.Variable([0.0])
    for g in gradients:
        optimizer.apply([ops.array([g], "float32")], [w])
    if flush:
        optimizer.flush()
    return w.numpy().item()


def sgd(k: int | None = None, rate: float = 1.0, **options: Any) -> ck.SGD:
    """A step is the gradient of the window, negated."""
    return ck.SGD(rate, gradient_accumulation_steps=k, **({"jit_compile": False} | options))


def tape_gradients(model: keras.Model, x: Any, y: Any, divisor: float = 1.0) -> list[tf.Tensor]:
    """Of the mean squared error divided by `divisor`."""
    with tf.GradientTape() as tape:
        loss = ops.mean(ops.square(model(x) - y)) / divisor
    return tape.gradient(loss, model.trainable_variables)


# Equal to a large batch --------------------------------------------------------------------------------------


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


# One division by K -------------------------------------------------------------------------------------------

Y = np.arange(1.0, 7.0, dtype="float32")[:, None]
"""Gradients 1, 2, … 6 of `line`."""


def fit(
    optimizer: Any, *callbacks: keras.callbacks.Callback, y: np.ndarray = Y, epochs: int = 1, run_eagerly: bool = True
) -> keras.Model:
    """`line` after `fit` with gradients y, one a batch. So few batches take less time than a trace."""
    model = line(optimizer, run_eagerly=run_eagerly)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, of variables without gradient
        model.fit(np.ones_like(y), y, batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def weight(model: keras.Model) -> float:
    return values(model)[0].item()


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
    for weight, g in ((1.0, 2.0), (3.0, 6.0)):
        optimizer.accumulate_gradients([ops.array([g])], [w], weight=weight)
    optimizer.step_with_accumulated_gradients()
    assert w.numpy().item() == pytest.approx(-20.0)


accumulation_config = {
    "accumulation_steps": 16,
    "normalize_gradients": True,
    "sync_batchnorm": True,
    "scale_loss": True,
    "defer_clip_until_accumulation": True,
}


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


# What is left at the end -------------------------------------------------------------------------------------


def test_the_remainder_is_carried_if_that_was_asked_for() -> None:
    """6 batches with K = 4: the two that are left open the window of the next `fit`."""
    model = fit(sgd(4, remainder="carry"), ck.Attach())
    assert weight(model) == -2.5
    assert model.optimizer.pending_micro_batches == 2
    model.fit(np.ones((2, 1)), Y[:2], batch_size=1, shuffle=False, verbose=0, callbacks=[ck.Attach()])
    assert weight(model) == -2.5 - (5 + 6 + 1 + 2) / 4


def test_without_a_callback_the_remainder_is_carried() -> None:
    """A warning says so, once; `flush` uses it."""
    model = line(sgd(4), run_eagerly=True)
    arguments: dict[str, Any] = {"batch_size": 1, "shuffle": False, "verbose": 0}
    with pytest.warns(UserWarning, match="2 micro-batches do not fill a window, and wait for more"):
        model.fit(np.ones_like(Y), Y, **arguments)
    assert (weight(model), model.optimizer.pending_micro_batches) == (-2.5, 2)
    model.optimizer.flush()
    assert (weight(model), model.optimizer.pending_micro_batches) == (-8.0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(np.ones_like(Y), Y, **arguments)
    assert model.optimizer.pending_micro_batches == 2


@pytest.mark.parametrize("callbacks", [[ck.Attach()], []])
def test_no_warning_where_nothing_is_left_behind_unasked(callbacks: list[Any]) -> None:
    """A remainder that is used, or that was to be carried; or none."""
    for optimizer in (sgd(4, remainder="flush" if callbacks else "carry"), sgd(3)):
        model = line(optimizer, run_eagerly=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(np.ones_like(Y), Y, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)


def test_a_callback_in_an_earlier_fit_does_not_count() -> None:
    model = fit(sgd(4), ck.Attach())
    assert weight(model) == -8.0
    model.fit(np.ones((2, 1)), Y[:2], batch_size=1, shuffle=False, verbose=0)
    assert (weight(model), model.optimizer.pending_micro_batches) == (-8.0, 2)


def test_windows_go_on_across_epochs() -> None:
    """Only the end of the data flushes: 3 epochs of 2 batches are a window of 4 and a rest of 2."""
    optimizer = sgd(4)
    model = fit(optimizer, ck.Attach(), y=Y[:2], epochs=3)
    assert weight(model) == -1.5 - 1.5
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("callback", [ck.Attach, ck.LogStatistics, ck.ClippingStatistics])
def test_every_callback_of_the_package_flushes(callback: Any) -> None:
    model = fit(sgd(4), callback())
    assert weight(model) == -8.0
    assert model.optimizer.pending_micro_batches == 0


def test_the_remainder_counts_in_the_average() -> None:
    """Weights -2.5 and -8: with EMA of momentum ½, the final weight is -2.5 / 2 - 8 / 2."""
    assert weight(fit(sgd(4, use_ema=True, ema_momentum=0.5), ck.Attach())) == -5.25


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("first", ["attach", "stopping"])
def test_early_stopping_flushes_too(first: str, average: bool) -> None:
    """Stopped after the second of four epochs of 3 batches: a window 1, 2, 3, 1 and a rest 2, 3, whoever comes
    first in the list of callbacks."""
    callbacks = [ck.Attach(), keras.callbacks.EarlyStopping("loss", patience=1, mode="max")]
    if first == "stopping":
        callbacks.reverse()
    model = fit(sgd(4, use_ema=average, ema_momentum=0.5), *callbacks, y=Y[:3], epochs=4)
    assert int(model.optimizer.iterations) == 2
    assert model.optimizer.pending_micro_batches == 0
    assert weight(model) == pytest.approx((-1.75 - 4.25) / 2 if average else -4.25)


def test_restored_best_weights_are_not_touched() -> None:
    """The rest is used before EarlyStopping brings the best weights back: those of the first epoch."""
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    for callbacks in ([ck.Attach(), stopping], [stopping, ck.Attach()]):
        assert weight(fit(sgd(2), *callbacks, y=Y[:3], epochs=4)) == -1.5


def test_an_error_in_the_middle_leaves_the_window_as_it_is() -> None:
    """Such a run is to be continued, not finished."""

    def fail(batch: int, logs: Any) -> None:
        if batch == 1:
            raise RuntimeError("lost")

    model = line(sgd(4))
    with pytest.raises(RuntimeError, match="lost"):
        model.fit(
            np.ones_like(Y), Y, batch_size=1, shuffle=False, verbose=0,
            callbacks=[ck.Attach(), keras.callbacks.LambdaCallback(on_train_batch_end=fail)],
        )  # fmt: skip
    assert (weight(model), model.optimizer.pending_micro_batches) == (0.0, 2)


def test_a_flush_is_an_update_like_any_other() -> None:
    """It counts, moves the schedule, and a gradient that is not finite is skipped in it."""
    optimizer, w = ck.SGD(CosineWithWarmup(1.0, total_steps=2), gradient_accumulation_steps=4), keras.Variable([0.0])
    optimizer.apply([ops.array([1.0])], [w])
    optimizer.flush()
    optimizer.apply([ops.array([np.nan], "float32")], [w])
    optimizer.flush()
    assert (w.numpy().item(), int(optimizer.iterations)) == (-1.0, 1)
    assert optimizer.counters()["skipped"] == 1
    optimizer.apply([ops.array([1.0])], [w])
    optimizer.flush()
    assert w.numpy().item() == pytest.approx(-1.5)


def test_a_variable_without_gradient_in_the_rest_stays() -> None:
    """It had gradients in the window before; with momentum it would move."""
    a, b = variables((2,), (2,))
    optimizer = sgd(2, momentum=0.9)
    for _ in range(2):
        optimizer.apply([ops.ones(2), ops.ones(2)], [a, b])
    before = b.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.apply([ops.ones(2), None], [a, b])
    optimizer.flush()
    np.testing.assert_array_equal(b.numpy(), before)


# Another number of micro-batches -----------------------------------------------------------------------------


class Counting(keras.Model):
    """`line`, counting the traces of its train step."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.traces = 0

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.traces += 1
        return super().train_step(data)


def test_the_scheduler_changes_k_without_a_new_trace() -> None:
    """K = 1, 2, 2, 4 in four epochs of 6 batches: 6 + 3 + 3 updates, and one and a half windows of 4."""
    model, seen = Counting(), []
    model.compile(sgd(), loss=lambda y, w: y * w)
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((model.traces, int(model.optimizer.iterations)))
    )
    model.fit(
        np.ones_like(Y), Y, batch_size=1, epochs=4, shuffle=False, verbose=0,
        callbacks=[watch, ck.GradientAccumulationScheduler({0: 1, 1: 2, 3: 4})],
    )  # fmt: skip
    assert [updates for _, updates in seen] == [6, 9, 12, 13]
    assert len({traces for traces, _ in seen}) == 1
    assert int(model.optimizer.iterations) == 14  # with the rest
    steps = [1, 2, 3, 4, 5, 6, 1.5, 3.5, 5.5, 1.5, 3.5, 5.5, 2.5, 5.5]
    assert weight(model) == pytest.approx(-sum(steps))


@pytest.mark.parametrize(
    ("schedule", "steps", "epochs", "updates"),
    [
        ({0: 1, 1: 2, 3: 4}, 6, 4, 6 + 3 + 3 + 1),
        ({0: 4}, 6, 4, 6),  # 24 micro-batches: windows go on across epochs
        ({0: 4, 2: 2}, 3, 4, 1 + 1 + 2),  # of 4 and, over from the second epoch, of 2 + 1; then of 2, 2
        ({0: 10, 1: 2}, 3, 3, 3),  # an open window of 3 is closed by the next micro-batch, then 1 and 1½ of 2
        ({1: 3}, 2, 3, 2 + 1),  # before the first entry K is the optimizer's own, 1
    ],
)
def test_the_scheduler_tells_the_total(schedule: dict[int, int], steps: int, epochs: int, updates: int) -> None:
    """The updates that there will be, without the rest: the schedule is at its end then."""
    optimizer = sgd(scheduler_type="linear_with_warmup", warmup_steps=0)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: seen.append(optimizer.pending_micro_batches),
    )
    callback = ck.GradientAccumulationScheduler(schedule)
    optimizer.remainder = "carry"
    fit(optimizer, callback, watch, y=Y[:steps], epochs=epochs)
    assert int(optimizer.iterations) == updates
    assert optimizer.get_learning_rate(step=updates) == 0.0
    assert optimizer.get_learning_rate(step=updates - 1) == pytest.approx(1 / updates)


def test_k_can_be_changed_in_the_middle_of_a_window() -> None:
    """Two micro-batches are in; with K = 3 one more is missing, with K = 1 it is as well."""
    for k in (3, 1):
        optimizer, w = sgd(8, accumulator=True), keras.Variable([0.0])
        for g in (1.0, 2.0):
            optimizer.apply([ops.array([g])], [w])
        optimizer.gradient_accumulation_steps = k
        optimizer.apply([ops.array([6.0])], [w])
        assert w.numpy().item() == -3.0


@pytest.mark.parametrize("schedule", [{}, {-1: 2}, {0: 0}, {0: 1.5}, {0.5: 2}, {0: "2"}, [1, 2], 4, None])
def test_bad_schedules_of_k(schedule: Any) -> None:
    with pytest.raises(ck.ConfigError, match="schedule"):
        ck.GradientAccumulationScheduler(schedule)


# Gradients that are not finite -------------------------------------------------------------------------------


def broken(count: int, seed: int = 0) -> list[tuple[list[np.ndarray], bool]]:
    """Gradients of two variables; a quarter has a NaN or Inf."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        grads = [rng.normal(size=s).astype("float32") for s in ((3, 2), (2,))]
        bad = bool(rng.random() < 0.25)
        if bad:
            grads[0][1, 1] = rng.choice([np.nan, np.inf, -np.inf])
        result.append((grads, bad))
    return result


def run(optimizer: Any, micro_batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Weights, and the optimizer's state without its reports."""
    ws = variables((3, 2), (2,))
    for grads in micro_batches:
        optimizer.apply([ops.convert_to_tensor(g) for g in grads], ws)
    rows = [s for row in optimizer._state.slots + optimizer._state.averages for s in row]
    return values([*ws, *rows, optimizer.iterations])


POLICIES: dict[str, dict[str, Any]] = {
    "adam": {"algorithm": "adam", "use_ema": True},
    "sgd": {"algorithm": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "divided": {"algorithm": "sgd", "loss_divided": True},
    "adaptive": {"algorithm": "sgd", "clip_method": "adaptive", "adaptive_clipping": {"history_length": 4}},
}


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("rule", POLICIES)
def test_dropping_micro_batches_equals_the_run_without_them(rule: str, jit_compile: bool) -> None:
    """Bit for bit: a window is full when three good ones are in."""
    options = POLICIES[rule] | {"gradient_accumulation_steps": 3, "jit_compile": jit_compile}
    micro = broken(24)
    one, two = (
        ck.Optimizer(learning_rate=0.1, nonfinite="drop_micro_batch", **options),
        ck.Optimizer(learning_rate=0.1, **options),
    )
    found = run(one, [g for g, _ in micro])
    expected = run(two, [g for g, bad in micro if not bad])
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()
    dropped = sum(bad for _, bad in micro)
    assert one.counters()["dropped"] == dropped > 3
    assert one.counters()["skipped"] == 0
    assert one.counters()["micro_steps"] == 24


@pytest.mark.parametrize("rule", POLICIES)
def test_skipping_equals_the_run_without_these_windows(rule: str) -> None:
    """Bit for bit: one bad micro-batch costs its window, and nothing else."""
    options = POLICIES[rule] | {"gradient_accumulation_steps": 3, "jit_compile": False}
    micro = broken(24, seed=1)
    whole = [micro[i : i + 3] for i in range(0, 24, 3)]
    good = [window for window in whole if not any(bad for _, bad in window)]
    assert 2 <= len(good) <= 6
    one, two = ck.Optimizer(learning_rate=0.1, **options), ck.Optimizer(learning_rate=0.1, **options)
    found = run(one, [g for g, _ in micro])
    expected = run(two, [g for window in good for g, _ in window])
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()
    assert one.counters()["skipped"] == 8 - len(good)


def test_a_window_of_dropped_micro_batches_only_makes_no_update() -> None:
    optimizer = sgd(2, nonfinite="drop_micro_batch")
    assert scalar(optimizer, np.nan, np.inf, np.nan, flush=True) == 0.0
    assert int(optimizer.iterations) == 0
    assert optimizer.counters()["dropped"] == 3


def test_dropping_with_weights() -> None:
    """The weight of a dropped micro-batch does not count: (1·2 + 3·6) / 4."""
    optimizer, w = sgd(2, nonfinite="drop_micro_batch"), keras.Variable([0.0])
    for weight, g in ((1.0, 2.0), (9.0, np.nan), (3.0, 6.0)):
        optimizer.weigh(weight)
        optimizer.apply([ops.array([g], "float32")], [w])
    assert w.numpy().item() == pytest.approx(-5.0)


# Clipping each micro-batch -----------------------------------------------------------------------------------


def clipped(gradients: Sequence[np.ndarray], kind: str, limit: float) -> list[np.ndarray]:
    """A micro-batch's gradients after clipping, in float64."""
    gs = [g.astype("float64") for g in gradients]
    if kind == "clipvalue":
        return [np.clip(g, -limit, limit) for g in gs]
    norms = [np.linalg.norm(g) for g in gs]
    if kind == "global_clipnorm":
        norms = [np.linalg.norm(norms)] * len(gs)
    return [g * min(1.0, limit / n) for g, n in zip(gs, norms, strict=True)]


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(
    ("kind", "normalize"),
    [("global_clipnorm", True), ("global_clipnorm", False), ("clipnorm", True), ("clipvalue", True)],
)
def test_clipping_before_accumulating(kind: str, normalize: bool, divided: bool) -> None:
    """Each micro-gradient at its true scale, then their mean, or sum (a third of it, where the loss was divided by
    3): 5 windows of 3 and a rest of 2."""
    rng = np.random.default_rng(0)
    micro = [[s * rng.normal(size=(3, 2)), s * rng.normal(size=2)] for s in 10 ** rng.uniform(-1, 1, 17)]
    options = {kind: 1.0, "normalize_gradients": normalize, "loss_divided": divided}
    optimizer = sgd(3, rate=0.1, defer_clip_until_accumulation=False, **options)
    ws = variables((3, 2), (2,))
    expected = [w.astype("float64") for w in values(ws)]
    for grads in micro:
        factor = 1 / 3 if divided else 1.0  # as the loss arrives
        optimizer.apply([ops.convert_to_tensor(factor * g, "float32") for g in grads], ws)
    optimizer.flush()
    for i in range(0, 17, 3):
        window = [clipped(g, kind, 1.0) for g in micro[i : i + 3]]
        for w, gs in zip(expected, zip(*window, strict=True), strict=True):
            w -= 0.1 * sum(gs) / (len(window) if normalize else 3.0 if divided else 1.0)
    for found, w in zip(values(ws), expected, strict=True):
        np.testing.assert_allclose(found, w, rtol=0, atol=2e-6)
    assert int(optimizer.iterations) == 6


def test_clipping_micro_batches_differs_from_clipping_their_mean() -> None:
    """3 and -1 with limit 1: clipped first, they cancel out; their mean is 1."""
    assert scalar(sgd(2, global_clipnorm=1.0, defer_clip_until_accumulation=False), 3.0, -1.0) == 0.0
    assert scalar(sgd(2, global_clipnorm=1.0), 3.0, -1.0) == -1.0


def test_clipping_micro_batches_adaptively() -> None:
    """The history is of micro-batches: medians of 2; 2, 4; 2, 4, 6; 2, 4, 6, 8."""
    options = {"clip_method": "adaptive", "adaptive_clipping": {"percentile": 50}}
    optimizer = sgd(2, defer_clip_until_accumulation=False, **options)
    assert scalar(optimizer, 2.0, 4.0, 6.0, 8.0) == pytest.approx(-(2 + 3) / 2 - (4 + 5) / 2)


def test_a_bad_micro_batch_is_left_out_of_the_history_too() -> None:
    options = {"clip_method": "adaptive", "adaptive_clipping": {"percentile": 50}, "nonfinite": "drop_micro_batch"}
    optimizer = sgd(2, defer_clip_until_accumulation=False, **options)
    assert scalar(optimizer, 2.0, np.inf, 4.0, np.nan, 6.0, 8.0) == pytest.approx(-(2 + 3) / 2 - (4 + 5) / 2)


@pytest.mark.parametrize("kind", ["global_clipnorm", "clipnorm", "clipvalue"])
def test_an_infinite_micro_gradient_skips_its_window(kind: str) -> None:
    """Clipping it by value would make it look finite."""
    optimizer = sgd(2, defer_clip_until_accumulation=False, **{kind: 1.0})
    assert scalar(optimizer, np.inf, 0.5, 0.5, 0.5) == -0.5
    assert optimizer.counters()["skipped"] == 1


# Batch normalisation -----------------------------------------------------------------------------------------


def normalised(momentum: float = 0.9) -> keras.Model:
    bn = [layers.BatchNormalization(momentum=momentum, name=f"bn{i}") for i in range(2)]
    return keras.Sequential([keras.Input((2,)), bn[0], layers.Dense(2), bn[1], layers.Dense(1)])


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


# Bad options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 1.5, "4", True, float("nan")])
def test_bad_numbers_of_micro_batches(k: Any) -> None:
    message = "gradient_accumulation_steps: expected a whole number >= 1, received"
    with pytest.raises(ck.ConfigError, match=message):
        sgd(k)
    with pytest.raises(ck.ConfigError, match=message):
        ck.Optimizer("sgd").configure_gradient_accumulation({"accumulation_steps": k})
    with pytest.raises(ck.ConfigError, match="accumulation_steps: expected a whole number >= 1, received"):
        ck.sync_batchnorm(normalised(), k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acumulation_steps": 2}, "option 'acumulation_steps'. Did you mean 'accumulation_steps'"),
        ({"clipnorm": 1.0}, "unknown accumulation option 'clipnorm'"),
        ({"remainder": "drop"}, "unknown remainder 'drop'. Allowed: carry, flush"),
        ({"nonfinite": "drop_microbatch"}, "Did you mean 'drop_micro_batch'"),
        ({"normalize_gradients": "yes"}, "normalize_gradients: expected True or False, received 'yes'"),
        ({"scale_loss": 1}, "loss_divided: expected True or False, received 1"),
        ({"defer_clip_until_accumulation": 0}, "defer_clip_until_accumulation: expected True or False, received 0"),
        ({"sync_batchnorm": None}, "sync_batchnorm: expected True or False, received None"),
        ({"accumulation_steps": 2, "gradient_accumulation_steps": 4}, "are the same option with different values"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    optimizer = ck.Optimizer("sgd")
    config = optimizer.get_config()
    with pytest.raises(ck.ConfigError, match=message):
        optimizer.configure_gradient_accumulation(options)
    assert optimizer.get_config() == config


def test_the_options_of_the_document_survive_the_config() -> None:
    optimizer = ck.Optimizer("adam")
    optimizer.configure_gradient_accumulation(accumulation_config)
    config = ck.Optimizer.from_config(optimizer.get_config()).get_config()
    assert config["gradient_accumulation_steps"] == 16
    assert config["normalize_gradients"] and config["sync_batchnorm"] and config["loss_divided"]
    assert config["defer_clip_until_accumulation"]

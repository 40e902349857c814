"""The learning-rate range test: what it measures, what it reads off, and that it leaves nothing behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.errors import ConfigError
from capibara_keras.monitoring.rate_range import RangeTest, read_range, smoothed
from tests.models import batches, classifier, digits, line, regression, regressor

X, Y = regression()


def all_state(model: keras.Model) -> list[bytes]:
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)).tobytes() for v in variables]


# What it measures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_losses_are_those_after_the_update_with_each_rate(micro_batches: int) -> None:
    """Loss w² with gradient 2 w: each update multiplies w by 1 - 2 rate."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    steps = micro_batches if micro_batches > 1 else None
    model.compile(ck.SGD(0.1, gradient_accumulation_steps=steps), "mse")
    test = ck.range_test(model, np.ones((4, 1)), np.zeros((4, 1)), low=1e-2, high=2, steps=12, batch_size=4)
    w, expected = 1.0, []
    for rate in np.geomspace(1e-2, 2, 12)[: len(test.losses)]:
        w *= 1 - 2 * rate
        expected.append(w**2)
    np.testing.assert_allclose(test.losses, expected, rtol=1e-4)
    assert test.start_loss == 1


def test_it_stops_soon_after_the_loss_has_diverged() -> None:
    model = regressor(ck.SGD(0.01))
    test = ck.range_test(model, X, Y, batch_size=16, low=1e-3, high=1e6, steps=100)
    assert test.diverged and len(test.rates) < 60
    assert 0.01 < test.steepest < test.largest_stable < 3


def test_a_loss_that_becomes_nan_is_infinite_and_the_end() -> None:
    model = line(None)
    model.compile(ck.SGD(0.1), loss=lambda y, w: keras.ops.log(1.0 + y * w))  # of w < -1 there is no logarithm
    test = ck.range_test(model, np.ones((4, 1)), np.ones((4, 1)), low=1e-5, high=10, steps=50)
    assert test.diverged and np.isinf(test.losses[-1]) and np.isfinite(test.losses[:-1]).all()


def shuffled(rates: np.ndarray, noise: float) -> np.ndarray:
    """A loss that falls most at 1e-2 and rises from 1 on, with noise."""
    x = np.log10(rates)
    trend = 2 - 1.5 / (1 + np.exp(-4 * (x + 2))) + np.where(x > 0, 4 * x, 0)
    return np.asarray(trend + noise * np.random.default_rng(0).normal(size=len(rates)))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_rates_of_a_known_curve(noise: float) -> None:
    rates = np.geomspace(1e-6, 10, 120)
    test = read_range(rates, shuffled(rates, noise), 2.0, False)
    assert abs(math.log10(test.steepest) + 2) < 0.35
    assert -0.6 < math.log10(test.largest_stable) < 0.2
    assert test.rose


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_constant_loss_falls_nowhere_and_is_stable_everywhere(noise: float) -> None:
    rates = np.geomspace(1e-6, 10, 100)
    for seed in range(20):
        test = read_range(rates, 1 + noise * np.random.default_rng(seed).normal(size=100), 1.0, False)
        assert math.isnan(test.steepest)
        assert test.largest_stable > 1 if noise else test.largest_stable == rates[-1]


def test_the_first_rate_was_too_high() -> None:
    rates = np.geomspace(1, 10, 10)
    for losses in (np.full(10, 1e9), np.full(10, np.nan), np.geomspace(50, 1e9, 10)):
        test = read_range(rates, losses, 2.0, True)
        assert math.isnan(test.steepest) and math.isnan(test.largest_stable) and test.rose


def test_smoothing_keeps_means_and_ends() -> None:
    np.testing.assert_allclose(smoothed(np.full(9, 3.0), 2.0), 3.0)
    assert smoothed(np.arange(9.0), 2.0)[4] == pytest.approx(4.0)


# Nothing is left behind ----------------------------------------------------------------------------------


def plain() -> Any:
    return ck.Adam(0.01, global_clipnorm=1.0, use_ema=True, skip_spikes=3.0)


def wrapped() -> Any:
    return keras.optimizers.LossScaleOptimizer(ck.AdamW(0.01, scheduler_type="linear_with_warmup", max_steps=50))


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "plain": plain,
    "schedule from 0": lambda: ck.SGD(
        0.01, momentum=0.9, scheduler_type="cosine_with_warmup", warmup_steps=20, max_steps=50
    ),
    "schedule without a total": lambda: ck.Adam(0.01, scheduler_type="cosine_with_warmup", warmup_ratio=0.1),
    "Keras schedule": lambda: ck.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)),
    "callable": lambda: ck.SGD(lambda: 0.01),
    "accumulation": lambda: ck.Adam(0.01, gradient_accumulation_steps=2),
    "loss scale": wrapped,
    "decay relative to the peak": lambda: ck.AdamW(
        0.01, weight_decay=0.1, weight_decay_mode="independent", scheduler_type="linear_with_warmup", max_steps=50
    ),
    "two points": lambda: ck.ScheduleFreeSGD(0.01),
}


def noisy(optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(6, "tanh"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def train(model: keras.Model) -> None:
    model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=[ck.Attach()])


DEFAULT = ("schedule from 0",)
SLOW = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow) for name in OPTIMIZERS]


@pytest.mark.parametrize("name", SLOW)
def test_all_is_as_before_bit_for_bit(name: str) -> None:
    """After some training; and training goes on as if nothing had been."""
    weights = []
    for tested in (False, True):
        model = noisy(OPTIMIZERS[name]())
        train(model)
        inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if tested:
            before, source = all_state(model), inner._learning_rate
            test = ck.range_test(model, X, Y, batch_size=8, low=1e-4, high=1e3, steps=10)
            assert len(test.rates) > 3
            assert all_state(model) == before
            assert inner._learning_rate is source
        train(model)
        weights.append(all_state(model))
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "schedule without a total"])
def test_before_training_too(name: str) -> None:
    weights = []
    for tested in (False, True):
        model = noisy(OPTIMIZERS[name]())
        if tested:
            initial = [w.tobytes() for w in model.get_weights()]
            ck.range_test(model, X, Y, batch_size=8, steps=10)
            assert [w.tobytes() for w in model.get_weights()] == initial
            assert int(model.optimizer.iterations) == 0 and not any(model.optimizer.counters().values())
            assert model.metrics[0].result() == 0
        train(model)
        weights.append(all_state(model))
    assert weights[0] == weights[1]


class Counting(keras.Model):
    """Counts traces; fails where it is told to."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.layer, self.traces, self.fails_at = keras.layers.Dense(1), 0, fails_at
        self.build((None, 4))

    def build(self, shape: Any) -> None:
        self.layer.build(shape)

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def train_step(self, data: Any) -> Any:
        self.traces += 1
        if self.traces == self.fails_at:
            raise KeyboardInterrupt
        return super().train_step(data)


@pytest.mark.parametrize("name", ["plain", "schedule from 0"])
def test_all_is_as_before_after_an_exception(name: str) -> None:
    model = Counting(fails_at=6)
    model.compile(OPTIMIZERS[name](), "mse", run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    before, source = all_state(model), model.optimizer._learning_rate
    with pytest.raises(KeyboardInterrupt):
        ck.range_test(model, X, Y, steps=10, batch_size=8)
    metrics = len(model.metrics_variables)
    after = all_state(model)
    assert len(before) <= len(after) <= len(before) + metrics
    assert [w.tobytes() for w in model.get_weights()] == before[: len(model.weights)]
    assert int(model.optimizer.iterations) == 0 and model.optimizer._learning_rate is source


def test_updates_are_traced_once() -> None:
    """Also twice with the same optimizer, and whatever type the data have."""
    model = Counting()
    model.compile(ck.Adam(0.01), "mse")
    ck.range_test(model, X.astype("float64"), Y, batch_size=8, steps=20)
    ck.range_test(model, X, Y, batch_size=8, steps=20)
    assert model.traces == 1


def test_a_schedule_costs_one_trace() -> None:
    model = Counting()
    model.compile(OPTIMIZERS["schedule from 0"](), "mse")
    ck.range_test(model, X, Y, batch_size=8, steps=20)
    assert model.traces == 1


# Data ----------------------------------------------------------------------------------------------------


class Dataset(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return batches()[index]


def of_tensorflow() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


@pytest.mark.parametrize("make", [Dataset, batches, of_tensorflow])
def test_datasets_of_all_kinds(make: Callable[[], Any]) -> None:
    test = ck.range_test(regressor(ck.Adam()), make(), steps=12, high=1e-3)
    assert len(test.rates) == 12 and np.isfinite(test.losses).all()


def generator() -> Iterator[Any]:
    yield from batches()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": 1.0, "high": 0.1}, "low < high"),
        ({"low": 1.0, "high": 1.0}, "low < high"),
        ({"low": 0.0}, "low"),
        ({"high": math.inf}, "high"),
        ({"steps": 3}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"x": X[:0], "y": Y[:0]}, r"lengths \[0\]"),
        ({"x": [], "y": None}, "holds no batch"),
        ({"x": None, "y": None}, "x: expected an array"),
        ({"x": generator(), "y": None}, "only once"),
        ({"y": Y * np.nan}, "first loss is not finite"),
        ({"model": None}, "received None"),
        ({"model": regressor()}, "has no loss"),
        ({"model": regressor(keras.optimizers.SGD())}, r"capibara_keras.Adam\(\)"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    model = arguments.get("model", regressor(ck.SGD(0.1)))
    with pytest.raises(ConfigError, match=message):
        ck.range_test(**({"model": model, "x": X, "y": Y} | arguments))
    if getattr(model, "compiled", False):
        assert int(model.optimizer.iterations) == 0


# Figures -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_figures_of_all_kinds_of_curves(tmp_path: Path) -> None:
    rates = np.geomspace(1e-6, 10, 40)
    curves = {
        "usual": shuffled(rates, 0.1),
        "constant": np.ones(40),
        "zero": np.zeros(40),
        "falls far": 10.0 ** -np.linspace(0, 9, 40),
        "explodes": np.where(rates > 1e-3, np.inf, 1.0),
        "never finite": np.full(40, np.nan),
        "one": np.full(1, 2.0),
    }
    for name, losses in curves.items():
        test = read_range(rates[: len(losses)], losses, 1.0, False)
        figure = test.plot(tmp_path / f"{name}.png")
        assert figure.axes[0].get_xlabel() == "learning rate" and figure.axes[0].get_xscale() == "log"
    assert len(list(tmp_path.iterdir())) == len(curves)


@pytest.mark.slow
def test_a_healthy_network_bears_the_rate_that_is_found() -> None:
    """The steepest rate trains the digits, ten times the largest stable one does not."""
    x, y = digits()
    accuracies = []
    test = ck.range_test(classifier(ck.SGD()), x, y, low=1e-4, high=1e3)
    assert isinstance(test, RangeTest) and test.rose
    for rate in (test.steepest, 100 * test.largest_stable):
        model = classifier(ck.SGD(rate))
        model.fit(x, y, epochs=10, verbose=0)
        accuracies.append(model.evaluate(x, y, verbose=0)[1])
    assert accuracies[0] > 0.9 > 0.5 > accuracies[1]

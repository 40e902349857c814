"""Reading an optimizer: nothing is missed, nothing is invented."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras import inspection
from capibara_keras.watch.losses import spread
from tests.models import regression, regressor


def trained(optimizer: ck.Optimizer, watch: ck.Watch, updates: int, every: int = 1) -> list[float]:
    """A loop on ½|w|²; the losses."""
    w, losses = keras.Variable(np.ones((2, 2), "float32"), name="layer_w"), []
    for t in range(updates):
        value = ops.convert_to_numpy(w)
        losses.append(float(np.sum(value**2) / 2))
        optimizer.apply([ops.array(value)], None if optimizer.built else [w])
        if (t + 1) % every == 0:
            watch.update(losses[-every:])
    return losses


@pytest.mark.parametrize("every", [1, 7, 30])
def test_no_update_is_missed(every: int) -> None:
    optimizer = ck.SGD(0.01)
    watch = ck.Watch(optimizer)
    losses = trained(optimizer, watch, 60, every)
    history = watch.monitor.history
    seen = 60 // every * every
    assert history.updates == seen
    np.testing.assert_allclose(history.losses.last(), losses[:seen])
    np.testing.assert_allclose(history.gradients.last(), np.sqrt(2 * np.array(losses[:seen])), rtol=1e-6)
    assert [x.update for x in watch.observations] == list(range(seen - every, seen))


def test_metrics_of_the_optimizer() -> None:
    optimizer = ck.SGD(0.1, statistics_every=1)
    trained(optimizer, ck.Watch(optimizer), 3)
    metrics = optimizer.get_optimization_metrics()
    assert metrics.update_ratio == pytest.approx(0.1, rel=1e-5)
    assert metrics["param_norm"] == pytest.approx(2 * 0.9**2, rel=1e-5)
    assert math.isnan(metrics.loss_smoothness)
    assert list(metrics.layers) == ["layer_w"]


def test_alerts_come_once() -> None:
    w, optimizer = keras.Variable([[1.0, 2.0]], name="w"), ck.Optimizer("sgd", learning_rate=0.1)
    optimizer.apply([ops.array([[1.0, 1.0]])], [w])
    optimizer.apply([ops.array([[float("inf"), 1.0]])], [w])
    (alert,) = optimizer.check_optimization_health()
    assert (alert.level, alert.id, alert.layer, alert.step) == ("critical", "nonfinite_gradient", "w", 1)
    assert alert.suggestion
    assert optimizer.check_optimization_health() == []


def test_skipped_updates_have_the_index_of_the_next() -> None:
    w, optimizer = keras.Variable([1.0], name="w"), ck.SGD(0.1)
    watch = ck.Watch(optimizer)
    for g in (1.0, math.nan, 1.0, math.nan):
        optimizer.apply([ops.array([g])], [w])
    watch.update()
    assert [(x.update, x.skipped) for x in watch.observations] == [(0, False), (1, True), (1, False), (2, True)]


def test_a_layer_that_comes_in_later() -> None:
    a, b, optimizer = keras.Variable([1.0], name="a"), keras.Variable([1.0], name="b"), ck.SGD(0.1)
    watch = ck.Watch(optimizer)
    optimizer.apply([ops.array([1.0])], [a])
    watch.update()
    optimizer.apply([ops.array([1.0]), ops.array([2.0])], [a, b])
    watch.update()
    assert watch.monitor.subject.layers == ("a", "b")
    assert watch.observations[-1].gradient_norms.tolist() == [1.0, 2.0]


def test_options_that_change_are_followed() -> None:
    """What was observed stays."""
    w, optimizer = keras.Variable([[1.0]], name="w"), ck.Adam(0.1)
    watch = ck.Watch(optimizer)
    for epsilon in (1e-3, 1e-8):
        optimizer.reconfigure({"epsilon": epsilon})
        optimizer.apply([ops.array([[1.0]])], [w])
        watch.update()
        assert watch.monitor.history.subject.epsilon == epsilon
    assert watch.monitor.history.updates == 2


def test_a_state_that_was_restored() -> None:
    """From then on all is seen again, and not only what goes beyond what was seen before."""
    w, optimizer = keras.Variable([[1.0]], name="w"), ck.SGD(0.1)
    optimizer.build([w])
    watch, early = ck.Watch(optimizer), [v.numpy() for v in optimizer.variables]
    for _ in range(5):
        optimizer.apply([ops.ones((1, 1))])
    watch.update()
    for variable, value in zip(optimizer.variables, early, strict=True):
        variable.assign(value)
    assert watch.is_ahead() and watch.update() == [] and not watch.is_ahead()
    optimizer.apply([ops.array([[math.nan]])])
    assert [(alert.id, alert.step) for alert in watch.update()] == [("nonfinite_gradient", 0)]


@pytest.mark.parametrize(
    "options, fixed", [("clipnorm", True), ("global_clipnorm", True), ("clipvalue", False), ("clip_method", False)]
)
def test_a_limit_of_entries_is_none_of_norms(options: str, fixed: bool) -> None:
    """They are not compared."""
    w, optimizer = keras.Variable([[1.0]], name="w"), ck.SGD(0.1, **{options: "agc" if "method" in options else 1e-3})
    optimizer.build([w])
    watch = ck.Watch(optimizer)
    watch.update()
    assert watch.monitor.subject.fixed_clip == fixed


RISING = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.2])


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"weight_decay": 0.5}, 0.05 * 2.0),
        ({"weight_decay": 0.5, "weight_decay_mode": "l2"}, math.nan),
        ({"weight_decay": 0.5, "weight_decay_mode": "independent", "learning_rate": RISING}, 0.25 * 2.0),
        ({"weight_decay": 0.5, "weight_decay_mode": "corrected", "learning_rate": RISING}, 0.025 * 2.0),
        ({"weight_decay": 0.5, "differential_learning_rates": {"w": 3.0}}, 0.15 * 2.0),
        ({"weight_decay": 0.5, "weight_decay_exclude": ["w"]}, 0.0),
        ({}, 0.0),
    ],
)
def test_what_decay_takes_off(options: dict[str, object], expected: float) -> None:
    w, optimizer = keras.Variable(np.ones((2, 2), "float32"), name="w"), ck.SGD(**{"learning_rate": 0.1} | options)
    watch = ck.Watch(optimizer, every=1)
    optimizer.apply([ops.zeros((2, 2))], [w])
    watch.update()
    np.testing.assert_allclose(watch.observations[0].decay_norm, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"state_precision": "bfloat16"},
        {"state_precision": "8bit"},
        {"cautious": True, "lookahead_steps": 5, "gradient_centralization": True},
        {"groups": [{"pattern": "b", "algorithm": "sgd"}]},
    ],
)
def test_moments_are_looked_at_behind_modifiers(options: dict[str, Any]) -> None:
    """Gradients of 1e-12 have second moments far below epsilon; 8 bits say nothing of single entries."""
    a, b = keras.Variable(np.ones((64, 64), "float32"), name="a"), keras.Variable([1.0], name="b")
    optimizer = ck.AdamW(1e-3, jit_compile=False, **options)
    watch = ck.Watch(optimizer, every=1)
    optimizer.apply([keras.random.normal((64, 64), stddev=1e-12, seed=0), ops.ones((1,))], [a, b])
    watch.update()
    share = watch.observations[-1].probe.below_epsilon[0]
    assert math.isnan(share) if options.get("state_precision") == "8bit" else share == 1.0
    assert watch.monitor.subject.epsilon == optimizer.configuration.rule.innermost.epsilon


def test_losses_of_micro_batches() -> None:
    w, optimizer = keras.Variable([1.0], name="w"), ck.SGD(0.1, gradient_accumulation_steps=2)
    watch = ck.Watch(optimizer)
    for loss in (1.0, 3.0, 5.0):
        optimizer.apply([ops.array([1.0])], [w])
        watch.update(loss)
    optimizer.apply([ops.array([1.0])], [w])
    watch.update(7.0)
    assert watch.monitor.history.losses.last().tolist() == [2.0, 6.0]


@pytest.mark.parametrize(
    "losses, updates, expected",
    [
        ([1.0, 3.0, 5.0, None], 2, [2.0, math.nan]),
        ([2.0], 3, [math.nan, math.nan, 2.0]),
        ([1.0, math.inf], 1, [math.inf]),
        ([], 2, [math.nan] * 2),
    ],
)
def test_spreading_losses(losses: list[float | None], updates: int, expected: list[float]) -> None:
    np.testing.assert_equal(spread(losses, updates), expected)


def test_equal_columns_and_small_moments() -> None:
    assert inspection.equal_columns(ops.ones((5, 4))) == 1.0
    assert inspection.equal_columns(ops.zeros((5, 4))) == 0.0
    assert math.isnan(inspection.equal_columns(ops.ones((5,))))
    assert inspection.equal_columns(ops.array(np.random.default_rng(0).normal(size=(3, 3, 2, 8)))) == 0.0
    assert math.isnan(inspection.below_epsilon(ops.zeros((5,)), 1.0, 1e-8))


def test_a_huge_epsilon_is_found_from_the_moments() -> None:
    optimizer = ck.Adam(1e-3, epsilon=10.0)
    model = regressor(optimizer)
    monitor = ck.HealthMonitor(print_fn=lambda text: None)
    model.fit(*regression(), batch_size=4, epochs=15, verbose=0, callbacks=[monitor])
    assert "adam_epsilon_dominant" in [alert.id for alert in monitor.alerts]


def test_micro_batches_tell_the_noise_of_the_gradient() -> None:
    """McCandlish et al. 2018, appendix A: without momentum nothing else could, and no pass is added to most updates."""
    rng, k, mean = np.random.default_rng(0), 4, np.full(1000, 0.1)
    optimizer = ck.SGD(1e-6, gradient_accumulation_steps=k)
    optimizer.build([keras.Variable(np.zeros(1000, "float32"), name="w")])
    watch = ck.Watch(optimizer, every=10)
    for step in range(k * 220):
        optimizer.apply([ops.array((mean + rng.normal(size=1000)).astype("float32"))])
        if step % 40 == 39:
            watch.update()
    noise, signal = 1000 / k, float(np.sum(mean**2))
    assert 0.7 * noise / signal < watch.metrics().grad_variance < 1.4 * noise / signal


def test_weighted_micro_batches_are_no_sample() -> None:
    optimizer = ck.SGD(1e-6, gradient_accumulation_steps=2)
    optimizer.build([keras.Variable(np.zeros(4, "float32"), name="w")])
    watch = ck.Watch(optimizer, every=1)
    for step in range(60):
        optimizer.weigh(1.0 + step % 2)
        optimizer.apply([ops.array(np.float32([1, step % 2, 0, 0]))])
    watch.update()
    assert np.isnan(watch.metrics().grad_variance)

"""Metrics on streams whose answers are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from capibara_keras.monitoring import Monitor, Observation, OptimizationMetrics, Subject
from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.indicators import median_of_columns, prefix, progress, smoothness
from tests.monitoring.streams import SUBJECT, changed, healthy, watch

SEED_KEYS = {
    "current_lr",
    "grad_norm",
    "param_norm",
    "update_norm",
    "update_ratio",
    "loss_smoothness",
    "grad_variance",
    "param_change_rate",
    "progress_score",
    "explosion_risk",
    "vanishing_risk",
    "lr_stability",
    "param_stability",
}


def metrics(stream: list[Observation], subject: Subject = SUBJECT) -> OptimizationMetrics:
    monitor = Monitor(subject)
    watch(stream, monitor)
    return monitor.metrics()


def test_every_key_is_there_and_unknown_before_the_first_update() -> None:
    found = Monitor(SUBJECT).metrics()
    assert set(found) >= SEED_KEYS
    assert all(math.isnan(found[key]) for key in SEED_KEYS)


def test_healthy() -> None:
    found = metrics(healthy())
    assert found.update_ratio == pytest.approx(1e-3, rel=0.1)
    assert found.progress_score > 0.9 and found.param_stability > 0.9
    assert found.lr_stability == 1 and found.explosion_risk == 0 and found.vanishing_risk == 0
    assert found.layers["c"].gradient_norm == pytest.approx(found.grad_norm * 0.76, rel=0.3)
    assert list(found.layers) == ["a", "norm", "b", "c"] and math.isnan(found.layers["norm"].update_ratio)


def test_one_observation_is_enough_for_the_norms() -> None:
    found = metrics(healthy(1))
    assert found.grad_norm > 0 and found.update_ratio > 0
    for name in ("loss_smoothness", "progress_score", "explosion_risk", "lr_stability", "param_stability"):
        assert math.isnan(found[name]), name


def test_no_measurement_leaves_only_its_own_numbers_unknown() -> None:
    nothing = {"parameter_norm": math.nan, "update_norm": math.nan, "parameter_norms": np.full(7, np.nan)}
    nothing |= {"update_norms": np.full(7, np.nan), "probe": None}
    found = metrics(changed(healthy(), 0, lambda x: nothing))
    assert math.isnan(found.update_ratio) and math.isnan(found.param_norm) and math.isnan(found.param_stability)
    assert found.vanishing_risk == 0 and found.progress_score > 0.9


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_enters_no_window(bad: float) -> None:
    """One bad loss leaves the others as they are; one bad gradient too."""
    clean = healthy(300)
    dirty = [x for t, x in enumerate(clean) for x in ([dataclasses.replace(x, loss=bad), x] if t == 200 else [x])]
    assert metrics(dirty).loss_smoothness == metrics(clean).loss_smoothness
    bad_norms = {"gradient_norm": math.inf, "gradient_norms": np.full(7, math.inf)}
    dirty = [x for t, x in enumerate(clean) for x in ([dataclasses.replace(x, **bad_norms), x] if t == 200 else [x])]
    assert metrics(dirty).vanishing_risk == metrics(clean).vanishing_risk
    assert np.isfinite(metrics(dirty).explosion_risk)


def test_memory_is_bounded() -> None:
    def size(history: History) -> int:
        return sum(ring._rows.size for ring in vars(history).values() if hasattr(ring, "_rows"))

    monitor = Monitor(SUBJECT)
    watch(healthy(10), monitor)
    before = size(monitor.history)
    watch(healthy(3000), monitor)
    assert size(monitor.history) == before and len(monitor.alerts) <= 1000


# One by one ------------------------------------------------------------------------------------------------


def test_smoothness_of_a_trend_of_noise_and_of_alternation() -> None:
    rng = np.random.default_rng(0)
    noise = [smoothness(rng.normal(size=100)) for _ in range(200)]
    assert smoothness(np.linspace(1, 0, 100)) > 0.99
    assert 0.4 < np.quantile(noise, 0.05) < 0.5 < np.quantile(noise, 0.95) < 0.6
    assert smoothness(np.tile([1.0, -1.0], 50)) < 0.02
    assert math.isnan(smoothness(np.arange(9.0)))


@pytest.mark.parametrize("factor,shift", [(1e-6, 0.0), (1e6, 0.0), (1.0, -50.0)])
def test_smoothness_and_progress_have_no_units(factor: float, shift: float) -> None:
    losses = np.array([x.loss for x in healthy(200)])
    assert smoothness(factor * losses + shift) == pytest.approx(smoothness(losses), rel=1e-6)
    assert progress(factor * losses + shift) == progress(losses)


def test_progress_of_noise_is_a_half() -> None:
    rng = np.random.default_rng(0)
    scores = [progress(rng.normal(size=400)) for _ in range(300)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.02)
    assert np.quantile(scores, 0.025) > 0.28 and np.quantile(scores, 0.975) < 0.72
    assert progress(np.ones(100)) == 0.5 and progress(np.arange(100.0)) == 0


@pytest.mark.parametrize("ratio,risk", [(1.0, 0.0), (10.0, 0.5), (100.0, 1.0), (1e5, 1.0)])
def test_explosion_risk_by_the_factor_over_the_median(ratio: float, risk: float) -> None:
    stream = changed(healthy(100), 0, lambda x: {"gradient_norm": 1.0 if x.update < 99 else ratio})
    assert metrics(stream).explosion_risk == pytest.approx(risk)


def test_explosion_risk_of_what_is_not_finite() -> None:
    assert metrics(changed(healthy(3), 2, lambda x: {"gradient_norm": math.inf})).explosion_risk == 1


@pytest.mark.parametrize("ratio,risk", [(1.0, 0.0), (1e-2, 0.5), (1e-3, 1.0), (1e-6, 1.0)])
def test_vanishing_risk_by_the_factor_under_the_largest(ratio: float, risk: float) -> None:
    sizes = np.sqrt([128, 16, 16, 256, 16, 64, 4])
    gradients = np.array([ratio, 0, 1, 1, 0, 1, 0]) * sizes
    assert metrics(changed(healthy(50), 0, lambda x: {"gradient_norms": gradients})).vanishing_risk == pytest.approx(
        risk, abs=0.15
    )


def test_vanishing_needs_a_prefix() -> None:
    """Attention's queries are small in a healthy transformer, but what is before them is not."""
    rms = np.array([1.0, 1e-6, 1.0])
    assert prefix(rms, np.ones(3, bool), 1e-3).tolist() == []
    assert prefix(rms[[1, 0, 2]], np.ones(3, bool), 1e-3).tolist() == [0]
    assert prefix(rms[[1, 0, 2]], np.array([False, True, True]), 1e-3).tolist() == []
    assert prefix(np.zeros(3), np.ones(3, bool), 1e-3).tolist() == []


def test_gradients_of_exactly_nothing_are_not_vanishing() -> None:
    stream = changed(healthy(60), 0, lambda x: {"gradient_norms": np.zeros(7), "gradient_norm": 0.0})
    assert math.isnan(metrics(stream).vanishing_risk)


def test_rate_stability_of_a_jump_and_of_a_warmup_from_nothing() -> None:
    warmup = changed(healthy(200), 0, lambda x: {"learning_rate": 1e-3 * min(x.update / 50, 1)})
    jump = changed(healthy(200), 150, lambda x: {"learning_rate": 1e-2})
    assert metrics(warmup).lr_stability == 1
    assert metrics(warmup[:60]).lr_stability > 0.95
    assert metrics(jump).lr_stability == pytest.approx(0)


def test_parameter_stability_of_a_growing_layer() -> None:
    norms = healthy(1)[0].parameter_norms

    def grow(x: Observation) -> dict[str, np.ndarray]:
        return {"parameter_norms": norms * np.where(np.arange(7) == 3, 1 + 0.25 * x.update / 100, 1)}

    assert metrics(changed(healthy(101), 0, grow)).param_stability == pytest.approx(0.5, abs=0.01)
    assert math.isnan(metrics(changed(healthy(100), 0, grow)).param_stability)


def test_parameter_stability_with_sparse_measurements() -> None:
    def every_tenth(x: Observation) -> dict[str, float]:
        return {"parameter_norm": x.parameter_norm if x.update % 10 == 0 else math.nan}

    found = metrics(changed(healthy(300), 0, every_tenth))
    assert found.param_stability == pytest.approx(metrics(healthy(291)).param_stability)


def test_parameter_change_rate_of_a_straight_line() -> None:
    monitor = Monitor(Subject(paths=("w",), shapes=((2,),)))
    for update in (0, 100, 250):
        monitor.snapshot(update, [np.array([100.0 + update, 0.0])])
    assert monitor.metrics().param_change_rate == pytest.approx(1 / 200)
    assert not monitor.wants_snapshot(300) and monitor.wants_snapshot(350)


def test_gradient_variance_from_micro_batches() -> None:
    """Micro-batch gradients G + noise: the ratio is tr(Σ)/K over |G|²."""
    rng = np.random.default_rng(0)
    mean, deviation, k = np.ones(50), 2.0, 8
    monitor = Monitor(Subject(paths=("w",), shapes=((50,),)))
    for t in range(500):
        parts = mean + deviation * rng.normal(size=(k, 50))
        whole, part = np.linalg.norm(parts.mean(0)), np.mean(np.sum(parts**2, 1))
        monitor.observe(Observation(t, gradient_norm=float(whole), micro_batches=k, micro_square=float(part)))
    assert monitor.metrics().grad_variance == pytest.approx(deviation**2 / k, rel=0.1)


def test_gradient_variance_from_successive_gradients() -> None:
    rng = np.random.default_rng(1)
    monitor = Monitor(SUBJECT)
    before = None
    for t in range(500):
        g = np.ones(50) + 0.5 * rng.normal(size=50)
        dot = math.nan if before is None else float(before @ g)
        probed = dataclasses.replace(healthy(1)[0].probe, gradient_dot=dot, gradient_square=float(g @ g))
        monitor.observe(Observation(t, gradient_norm=float(np.linalg.norm(g)), probe=probed))
        before = g
    assert monitor.metrics().grad_variance == pytest.approx(0.25, rel=0.15)


def test_gradient_variance_is_infinite_where_no_signal_is_left() -> None:
    monitor = Monitor(SUBJECT)
    for t in range(40):
        monitor.observe(Observation(t, gradient_norm=1.0, micro_batches=4, micro_square=5.0))
    assert monitor.metrics().grad_variance == math.inf


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_medians_of_columns_are_numpys(rows: int) -> None:
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 40))
    x[rng.random(x.shape) < 0.3] = np.nan
    x[:, 0] = np.nan
    known = ~np.isnan(x).all(0)
    found = median_of_columns(x)
    np.testing.assert_allclose(found[known], np.nanmedian(x[:, known], axis=0))
    assert np.isnan(found[~known]).all()

"""The calls of the project's founding document, as written there, with their values checked.

They are made on one optimizer, in the order of the document: configured, stepped, configured anew.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from capibara_keras import Optimizer
from tests.models import regression, regressor

SCHEDULES = json.loads((Path(__file__).parent / "data" / "schedules.json").read_text())


def check_rates(optimizer: Optimizer, reference: str, peak: float) -> None:
    """The rates at the steps of a reference, which are of optax and Hugging Face."""
    for step, rate in SCHEDULES[reference]["values"].items():
        assert optimizer.get_learning_rate(step=int(step)) == pytest.approx(rate, rel=0, abs=1e-6 * peak)


@pytest.fixture
def optimizer() -> Optimizer:
    return Optimizer(
        algorithm="adam",
        learning_rate=1e-4,
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-8,
        weight_decay=0.01,
        gradient_clip_norm=1.0,
        use_scheduler=True,
        scheduler_type="cosine_with_warmup",
    )


scheduler_config = {
    "warmup_steps": 10000,
    "max_steps": 500000,
    "min_learning_rate": 1e-6,
    "cosine_restarts": True,
    "restart_decay": 0.8,
    "restart_period": 100000,
}

cosine_scheduler_config = {
    "scheduler_type": "cosine_with_warmup",
    "warmup_steps": 2000,
    "max_steps": 100000,
    "max_learning_rate": 6e-4,
    "min_learning_rate": 6e-5,
    "cosine_cycles": 1.0,
    "warmup_init_lr": 0.0,
}

linear_scheduler_config = {
    "scheduler_type": "linear_with_warmup",
    "warmup_steps": 5000,
    "training_steps": 200000,
    "start_lr": 0.0,
    "peak_lr": 3e-4,
    "end_lr": 1e-5,
}

poly_scheduler_config = {
    "scheduler_type": "polynomial",
    "power": 0.5,
    "warmup_steps": 1000,
    "total_steps": 500000,
    "end_learning_rate": 1e-6,
}

adam_config = {
    "algorithm": "adam",
    "learning_rate": 3e-4,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 0.1,
    "amsgrad": False,
    "maximize": False,
    "foreach": True,
    "differentiable": False,
}

adamw_config = {
    "algorithm": "adamw",
    "learning_rate": 6e-4,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 0.1,
    "correct_bias": True,
    "no_deprecation_warning": True,
}

sgd_config = {
    "algorithm": "sgd",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "nesterov": True,
    "dampening": 0.1,
}


def test_base_optimizer(optimizer: Optimizer) -> None:
    """The options have arrived, under Keras' names."""
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.9, 0.999, 1e-8)
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.01, 1.0)


def test_configure_scheduler(optimizer: Optimizer) -> None:
    optimizer.configure_scheduler(scheduler_config)
    check_rates(optimizer, "restarts_seed(10000,500000,1e-6,decay .8,period 1e5,peak 1e-4)", peak=1e-4)
    assert optimizer.get_learning_rate(step=10000) == np.float32(1e-4)  # the constructor's rate is the peak


def test_step_with_metrics(optimizer: Optimizer) -> None:
    """At the end of the warmup, where the rate is the peak."""
    optimizer.configure_scheduler(scheduler_config)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape).astype("float32") for shape in ((4, 3), (3,))]
    grads = [rng.normal(size=shape).astype("float32") for shape in ((4, 3), (3,))]
    model_parameters = [keras.Variable(w) for w in start]
    model_gradients = [ops.array(g) for g in grads]
    current_step = 10000

    optimization_step = optimizer.step(
        gradients=model_gradients,
        parameters=model_parameters,
        step_number=current_step,
        return_metrics=True,
    )

    assert optimization_step is not None
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in grads))
    squares = sum((w.astype("float64") ** 2).sum() for w in start)
    assert optimization_step.learning_rate == pytest.approx(1e-4)
    assert optimization_step.gradient_norm == pytest.approx(norm, rel=1e-6)  # before clipping
    assert optimization_step.parameter_norm == pytest.approx(np.sqrt(squares), rel=1e-6)  # before the update
    assert optimization_step.weight_decay_loss == pytest.approx(0.5 * 0.01 * squares, rel=1e-6)
    assert optimization_step.clipped
    assert optimization_step["gradient_norm"] == optimization_step.gradient_norm

    # Adam's first step is the rate times the gradient's sign; decay takes rate times 0.01 of the weight.
    moved = [1e-4 * (np.sign(g) + 0.01 * w) for g, w in zip(grads, start, strict=True)]
    for w, before, change in zip(model_parameters, start, moved, strict=True):
        np.testing.assert_allclose(w.numpy(), before - change, atol=2e-7)
    change = np.sqrt(sum((m**2).sum() for m in moved))
    assert optimization_step.update_norm == pytest.approx(change, rel=1e-5)

    assert f"Learning rate: {optimization_step.learning_rate:.2e}" == "Learning rate: 1.00e-04"
    assert f"Gradient norm: {optimization_step.gradient_norm:.4f}" == f"Gradient norm: {norm:.4f}"
    assert f"Parameter norm: {optimization_step.parameter_norm:.4f}" == f"Parameter norm: {squares**0.5:.4f}"
    decay = f"Weight decay applied: {optimization_step.weight_decay_loss:.6f}"
    assert decay == f"Weight decay applied: {0.005 * squares:.6f}"


def test_step_without_metrics_returns_nothing(optimizer: Optimizer) -> None:
    optimizer.configure_scheduler(scheduler_config)
    assert optimizer.step(gradients=[ops.ones(1)], parameters=[keras.Variable([1.0])], step_number=3) is None


def test_step_takes_dictionaries() -> None:
    """Gradients find their parameters by name, whatever their order; a missing one is left alone."""
    parameters = {name: keras.Variable([1.0], name=name) for name in ("a", "b", "c")}
    optimizer = Optimizer("sgd", learning_rate=0.5)
    with pytest.warns(UserWarning, match="'c'"):
        optimizer.step({"b": ops.array([2.0]), "a": ops.array([1.0])}, parameters)
    assert [w.numpy().item() for w in parameters.values()] == [0.5, 0.0, 1.0]


def test_scheduler_without_its_steps_is_legal_until_the_rate_is_needed(optimizer: Optimizer) -> None:
    w = keras.Variable([1.0])
    with pytest.raises(ValueError, match=r"missing total_steps.*max_steps"):
        optimizer.step([ops.ones(1)], [w])
    optimizer.configure_scheduler(scheduler_config)
    optimizer.step([ops.ones(1)], [w])
    assert int(optimizer.iterations) == 1


def test_create_adam() -> None:
    adam_optimizer = Optimizer.create_adam(adam_config)
    check_created(adam_optimizer, adam_config)
    w, g = np.float64(0.5), np.float64(2.0)
    expected, m, v = w, 0.0, 0.0
    for t in (1, 2, 3):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
        expected, g = expected - 3e-4 * (u + 0.1 * expected), g - 1.5  # 2, 0.5, -1
    assert walked(adam_optimizer, w, [2.0, 0.5, -1.0]) == pytest.approx(expected, abs=1e-7)


def test_create_adamw() -> None:
    adamw_optimizer = Optimizer.create_adamw(adamw_config)
    check_created(adamw_optimizer, adamw_config)
    assert walked(adamw_optimizer, 0.5, [2.0]) == pytest.approx(0.5 - 6e-4 * (1 + 0.1 * 0.5), abs=1e-7)


def test_create_sgd() -> None:
    """Nesterov together with dampening: the formula, and a warning, since torch refuses it."""
    with pytest.warns(UserWarning, match="dampening"):
        sgd_optimizer = Optimizer.create_sgd(sgd_config)
    check_created(sgd_optimizer, sgd_config)
    expected, buffer = 0.5, None
    for g in (2.0, 0.5, -1.0):
        buffer = g if buffer is None else 0.9 * buffer + (1 - 0.1) * g
        expected -= 0.01 * (g + 0.9 * buffer + 5e-4 * expected)
    assert walked(sgd_optimizer, 0.5, [2.0, 0.5, -1.0]) == pytest.approx(expected, abs=1e-7)


def check_created(optimizer: Optimizer, options: dict[str, Any]) -> None:
    """Every option is in the configuration, and survives its round trip."""
    spelling = {"beta1": "beta_1", "beta2": "beta_2"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = Optimizer.from_config(optimizer.get_config())
    for one in (optimizer, back):
        config = one.get_config()
        assert {name: config[spelling.get(name, name)] for name in options} == options


def walked(optimizer: Optimizer, start: float, gradients: list[float]) -> float:
    w = keras.Variable([float(start)])
    for g in gradients:
        optimizer.step([ops.array([g])], [w])
    return w.numpy().item()


def test_configure_cosine_scheduler(optimizer: Optimizer) -> None:
    optimizer.configure_cosine_scheduler(cosine_scheduler_config)
    check_rates(optimizer, "optax.warmup_cosine(0,P,W,T,M)", peak=6e-4)
    current_lr = optimizer.get_learning_rate(step=50000)
    assert f"Learning rate at step 50000: {current_lr:.2e}" == "Learning rate at step 50000: 3.39e-04"


def test_configure_linear_scheduler(optimizer: Optimizer) -> None:
    optimizer.configure_linear_scheduler(linear_scheduler_config)
    check_rates(optimizer, "linear_seed(5000,200000,0,3e-4,1e-5)", peak=3e-4)


def test_configure_polynomial_scheduler(optimizer: Optimizer) -> None:
    """The peak is the constructor's rate."""
    optimizer.configure_polynomial_scheduler(poly_scheduler_config)
    check_rates(optimizer, "poly_seed(power .5,1000,500000,peak1e-4,1e-6)", peak=1e-4)


def test_the_whole_document_on_one_optimizer(optimizer: Optimizer) -> None:
    """Each schedule replaces the one before, after `step` as before it; the state stays."""
    w = keras.Variable([1.0])
    optimizer.configure_scheduler(scheduler_config)
    optimizer.step([ops.ones(1)], [w], step_number=10000)
    for configure, config, step, rate in (
        (optimizer.configure_cosine_scheduler, cosine_scheduler_config, 2000, 6e-4),
        (optimizer.configure_linear_scheduler, linear_scheduler_config, 200000, 1e-5),
        (optimizer.configure_polynomial_scheduler, poly_scheduler_config, 1000, 1e-4),
    ):
        configure(config)
        record = optimizer.step([ops.ones(1)], [w], step_number=step, return_metrics=True)
        assert record is not None
        assert record.learning_rate == pytest.approx(rate)
    # With a constant gradient Adam's step is the rate, whatever came before.
    assert w.numpy().item() == pytest.approx(1 - (1e-4 + 6e-4 + 1e-5 + 1e-4) * 1.01, abs=1e-6)
    assert int(optimizer.iterations) == 4


def test_in_fit(optimizer: Optimizer) -> None:
    """It is a Keras optimizer: the configured one trains a model."""
    optimizer.configure_scheduler({"warmup_steps": 0, "max_steps": 40, "max_learning_rate": 0.1})
    model = regressor(optimizer)
    history = model.fit(*regression(), batch_size=8, epochs=10, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert optimizer.get_learning_rate() == 0.0  # update 40 of 40


def test_metrics_and_alerts(optimizer: Optimizer) -> None:
    """The document's summary of metrics and its loop over alerts, after a fit without any callback."""
    model = regressor(optimizer)
    optimizer.configure_scheduler(scheduler_config)
    model.fit(*regression(), batch_size=4, epochs=8, verbose=0)
    optimization_metrics = optimizer.get_optimization_metrics()
    for group in (
        ("current_lr", "grad_norm", "param_norm", "update_norm", "update_ratio"),
        ("loss_smoothness", "grad_variance", "param_change_rate", "progress_score"),
        ("explosion_risk", "vanishing_risk", "lr_stability", "param_stability"),
    ):
        assert all(isinstance(optimization_metrics[name], float) for name in group)
    known = [name for name in ("current_lr", "grad_norm", "loss_smoothness", "progress_score", "explosion_risk")]
    assert np.isfinite([optimization_metrics[name] for name in known]).all()
    assert np.isnan([optimization_metrics[name] for name in ("param_norm", "update_ratio")]).all()  # not measured
    assert [alert for alert in optimizer.check_optimization_health() if alert.level != "info"] == []
    model.fit(regression()[0], regression()[1] * np.nan, batch_size=8, verbose=0)
    optimization_alerts = optimizer.check_optimization_health()
    alert = optimization_alerts[0]
    assert (alert.level, alert.id, alert.step) == ("critical", "nonfinite_loss", 64)
    assert "batch" in alert.suggestion and alert.message

"""The callback in `fit`: what it says, writes and does."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.callbacks.batch_losses import BatchLosses
from tests.models import classifier, digits, regression, regressor, values
from tests.subprocess_runner import run


def broken(at: int, batch_size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """`regression` with a NaN in the targets of one batch."""
    x, y = (np.tile(part, (4, 1)) for part in regression())
    y[at * batch_size] = np.nan
    return x, y


def fitted(monitor: ck.HealthMonitor, at: int = 5, epochs: int = 1, verbose: int = 0, **options: Any) -> keras.Model:
    model = regressor(ck.SGD(0.05, nonfinite="propagate", **options))
    x, y = broken(at)
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=verbose, callbacks=[monitor])
    return model


@pytest.mark.parametrize("every", [1, 3, 64])
def test_a_bad_loss_is_dated_to_its_update(every: int) -> None:
    monitor = ck.HealthMonitor(every=every, print_fn=lambda text: None)
    fitted(monitor)
    assert (monitor.alerts[0].id, monitor.alerts[0].step, monitor.alerts[0].layer) == ("nonfinite_loss", 5, "loss")


def test_a_message_stands_below_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    fitted(ck.HealthMonitor(), verbose=1)
    assert "\ncritical at update 5: the loss is NaN or infinite." in capsys.readouterr().out


def test_a_healthy_run_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    model = classifier(ck.Adam(3e-3))
    x, y = digits()
    model.fit(x, y, batch_size=16, epochs=6, verbose=0, validation_data=(x, y), callbacks=[ck.HealthMonitor()])
    assert capsys.readouterr().out == ""
    assert model.optimizer.check_optimization_health() == []
    assert 0 < model.optimizer.get_optimization_metrics().update_ratio < 0.1


def test_stop() -> None:
    model = fitted(ck.HealthMonitor("stop", every=2, print_fn=lambda text: None))
    assert int(model.optimizer.iterations) == 7


def test_reduce() -> None:
    said: list[str] = []
    model = fitted(ck.HealthMonitor("reduce_lr", reduce_factor=0.5, print_fn=said.append))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)  # once: loss and weights in one reading
    assert "the learning rate goes from 0.05 to 0.025" in said


def test_rollback_restores_weights_and_state_and_skips_the_batch() -> None:
    """Training goes on from the last copy with the batches behind the bad one, as if it had never come."""
    monitor = ck.HealthMonitor("rollback", every=3, print_fn=lambda text: None)
    found = fitted(monitor, at=1, momentum=0.9)
    x, y = broken(1)
    expected = regressor(ck.SGD(0.05, momentum=0.9))
    expected.fit(x[24:], y[24:], batch_size=8, shuffle=False, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(values(found), values(expected), strict=True))
    assert int(found.optimizer.iterations) == 13
    seen = [(alert.id, alert.step) for alert in monitor.alerts]  # the weights were NaN in the same reading; and this
    assert seen == [("nonfinite_loss", 1), ("nonfinite_parameter", 2), ("update_ratio_high", 3)]  # rate is too high


def test_rollbacks_that_do_not_help_end_training() -> None:
    said: list[str] = []
    x, y = regression()
    model = regressor(ck.SGD(0.05, nonfinite="propagate"))
    monitor = ck.HealthMonitor("rollback", every=1, print_fn=said.append)
    model.fit(x, y * np.nan, batch_size=8, epochs=20, verbose=0, callbacks=[monitor])
    assert said[-1].startswith("training stops because of nonfinite_loss")
    assert sum(text.startswith("weights and optimizer are those of update 0") for text in said) == 3


def test_lines(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.jsonl"
    monitor = ck.HealthMonitor(path=path, every=4, print_fn=lambda text: None)
    fitted(monitor)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    records = [line for line in lines if "alert" not in line]
    assert [record["update"] for record in records] == list(range(16))
    assert set(records[0]) == {*(name for name in ck.StepRecord(*[0.0] * 9)), "layers"}
    assert records[4]["loss"] > 0 and records[5]["loss"] is None and records[5]["update_norm"] is None
    assert records[1]["update_norm"] > 0  # the first updates are all measured
    first, second = records[4]["layers"].values()
    assert first["update_norm"] > 0 and second["gradient_norm"] > 0
    assert next(line["alert"]["id"] for line in lines if "alert" in line) == "nonfinite_loss"


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ck.ConfigError, match="path: cannot write"):
        fitted(ck.HealthMonitor(path=tmp_path / "file" / "run.jsonl"))


@pytest.mark.parametrize(
    "options",
    [
        {"on_critical": "panic"},
        {"every": 0},
        {"every": 65},
        {"level": "loud"},
        {"reduce_factor": 1.0},
        {"keep_every": 0},
        {"baseline_loss": math.nan},
    ],
)
def test_bad_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(ck.ConfigError, match=next(iter(options))):
        ck.HealthMonitor(**options)


def test_rules_of_ones_own() -> None:
    def large(history: Any, limit: float) -> Any:
        rate = history.latest.learning_rate
        return ck.monitoring.Finding(rate) if rate > limit else None

    rule = ck.monitoring.HealthRule("rate", "warning", large, 0.01, "rate {value:g}", "lower it to {limit:g}")
    said: list[str] = []
    model = regressor(ck.SGD(0.05))
    monitor = ck.HealthMonitor(rules=(*ck.monitoring.DEFAULT_RULES, rule), print_fn=said.append)
    model.fit(*regression(), batch_size=8, epochs=2, verbose=0, callbacks=[monitor])
    assert said == ["warning at update 0: rate 0.05. Lower it to 0.01."]


def test_a_loss_scale_that_looks_for_its_size_is_no_fault() -> None:
    inner = ck.Adam(1e-3)
    model = regressor(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**15))
    monitor = ck.HealthMonitor(print_fn=lambda text: None)
    history = model.fit(*regression(), batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[monitor]).history
    assert [alert for alert in monitor.alerts if alert.level != "info"] == []
    np.testing.assert_allclose(monitor.watch.monitor.history.losses.last(4).mean(), history["loss"][-1], rtol=1e-4)


def test_the_mean_is_undone() -> None:
    losses, rng = BatchLosses(), np.random.default_rng(0)
    x = rng.normal(size=50)
    means = np.cumsum(x) / np.arange(1, 51)
    for batch in rng.permutation(50):
        losses.seen(batch, float(means[batch]))
    np.testing.assert_allclose(losses.take(), x, atol=1e-12)
    losses.begin()
    for batch, mean in ((1, 3.0), (2, math.nan), (3, math.nan)):
        losses.seen(batch, mean)
    assert losses.take() == [3.0, 3.0, math.inf, None]


def test_batches_that_pass_have_no_loss() -> None:
    """The mean after them is of the run before, which has seen them; what is added to it is known one batch later."""
    losses = BatchLosses()
    for batch in range(3):
        losses.passed(batch)
        losses.wait(batch + 1, seconds=1e6)
    assert losses.take() == []
    for batch, mean in ((3, 4.0), (4, 3.0)):
        losses.seen(batch, mean)
    assert losses.take() == [None, -1.0]


def test_a_resumed_epoch(tmp_path: Path) -> None:
    """The losses of batches before the resumption are not the first update's."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 7:
                raise KeyboardInterrupt

    def losses(*callbacks: Any) -> list[float]:
        scaled = keras.optimizers.LossScaleOptimizer(ck.SGD(0.05), initial_scale=1.0)
        model, resume = regressor(scaled, run_eagerly=True), ck.Resume(tmp_path, every=2)
        monitor = ck.HealthMonitor(every=2, print_fn=lambda text: None)
        data = resume.data(regression(), batch_size=2)
        model.fit(data, steps_per_epoch=16, epochs=1, verbose=0, callbacks=[resume, monitor, *callbacks])
        return monitor.watch.monitor.history.losses.last().tolist()

    whole = losses()
    with pytest.raises(KeyboardInterrupt):
        losses(Stop())
    assert len(whole) == 16
    np.testing.assert_allclose(losses(), whole[7:], rtol=1e-4)  # 6 was not known, and is not in the history


PROGRAM = """
import json, sys, keras, numpy as np
import capibara_keras as ck
from tests.models import regressor
from tests.monitoring.test_health_monitor import broken
strategy = None
if len(sys.argv) > 1:
    import tensorflow as tf
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x, y = broken(12)
def train(action):
    monitor = ck.HealthMonitor(action, every=3, print_fn=lambda text: None)
    model = regressor(ck.SGD(0.05, nonfinite="propagate", gradient_accumulation_steps=2), jit_compile=False)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    losses = monitor.watch.monitor.history.losses.last().tolist()
    finite = all(np.isfinite(keras.ops.convert_to_numpy(w)).all() for w in model.weights)
    updates = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    return [monitor.alerts[0].id, monitor.alerts[0].step, losses, updates, finite]
if strategy is None:
    print(json.dumps([train("warn"), train("rollback")]))
else:
    with strategy.scope():
        print(json.dumps([train("warn"), train("rollback")]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend, devices", [("jax", 1), ("tensorflow", 2)])
def test_elsewhere(backend: str, devices: int) -> None:
    """On JAX and on two replicas the losses come from Keras' logs."""
    warned, rolled = run(PROGRAM, ["replicas"] if devices > 1 else [], backend=backend, devices=devices)
    here = ck.HealthMonitor(print_fn=lambda text: None)
    fitted(here, at=12, gradient_accumulation_steps=2)
    assert warned[:2] == rolled[:2] == ["nonfinite_loss", 6]
    np.testing.assert_allclose(warned[2], here.watch.monitor.history.losses.last(), rtol=1e-3)
    assert rolled[4] and not warned[4]
    assert rolled[3] < 8 == warned[3]


@pytest.mark.parametrize("part", [False, True])
def test_a_model_that_fit_builds(part: bool) -> None:
    """Without an `Input`, TensorFlow's `fit` builds it in the first batch: watched all the same, and brought back."""
    first = keras.layers.Dense(4)
    if part:
        first.build((None, 8))
    model = keras.Sequential([first, keras.layers.Dense(3, "softmax")])
    model.compile(ck.SGD(1e-3, nonfinite="propagate"), "sparse_categorical_crossentropy")
    monitor = ck.HealthMonitor(on_critical="rollback", every=1, keep_every=1, print_fn=lambda text: None)
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    x[40] = np.nan
    model.fit(x, np.arange(64) % 3, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    assert monitor.alerts[0].step == 5 and monitor.watch.baseline_loss == pytest.approx(math.log(3))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_one_batch_and_nothing_to_go_back_to() -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(ck.SGD(1e30, nonfinite="propagate"), "mse")
    said: list[str] = []
    monitor = ck.HealthMonitor(on_critical="rollback", print_fn=said.append)
    model.fit(np.full((4, 2), 1e30), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[monitor])
    assert said[-1] == "there is no earlier state to go back to: training stops"


@pytest.mark.parametrize("steps, accumulated, missed", [(256, 1, False), (512, 1, True), (512, 4, False)])
def test_an_execution_of_more_updates_than_are_kept(steps: int, accumulated: int, missed: bool) -> None:
    model = regressor(ck.SGD(1e-3, gradient_accumulation_steps=accumulated), steps_per_execution=steps)
    monitor = ck.HealthMonitor()
    monitor.set_model(model)
    monitor.set_params({})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monitor.on_train_begin()
    assert any(f"the last 256 of {steps} updates" in str(w.message) for w in caught) == missed

"""Event files, read back."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.errors import ConfigError
from tests import event_files
from tests.models import classifier, digits, regression, regressor

X, Y = regression()


def fit(folder: Path, model: Any = None, *others: Any, **options: Any) -> ck.TensorBoardStatistics:
    callback = ck.TensorBoardStatistics(folder, every=2, **options)
    model = model or regressor(ck.SGD(0.01))
    model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[*others, callback])
    return callback


def test_metrics_and_layers_are_there_by_number_of_updates(tmp_path: Path) -> None:
    model = regressor(ck.SGD(0.01))
    callback = fit(tmp_path, model)
    found = event_files.read(tmp_path / "health")
    assert callback.directory == tmp_path / "health"
    assert [step for step, _ in found["scalars health/grad_norm"]] == [2, 4, 6, 8, 10, 12, 14, 16]
    metrics = model.optimizer.get_optimization_metrics()
    for name in ("grad_norm", "update_norm", "current_lr", "param_norm"):
        step, value = found[f"scalars health/{name}"][-1]
        assert (step, value) == (int(model.optimizer.iterations), pytest.approx(metrics[name], rel=1e-6))
    layer = next(iter(metrics.layers))
    step, value = found[f"scalars health/layer/{layer}/gradient_norm"][-1]
    assert value == pytest.approx(metrics.layers[layer].gradient_norm, rel=1e-6)
    losses = [value for _, value in found["scalars health/loss"]]
    assert losses[-1] == pytest.approx(model.optimizer.statistics().loss, rel=1e-6) and losses[0] != losses[-1]
    assert "scalars health/progress_score" not in found  # not known after 16 updates


@pytest.mark.slow
def test_accumulation_counts_updates(tmp_path: Path) -> None:
    fit(tmp_path, regressor(ck.SGD(0.01, gradient_accumulation_steps=2)), layers=False)
    found = event_files.read(tmp_path / "health")
    assert [step for step, _ in found["scalars health/grad_norm"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not any("layer" in tag for tag in found)


@pytest.mark.parametrize("shared", [pytest.param(False, marks=pytest.mark.slow), True])
def test_alerts_are_texts(tmp_path: Path, shared: bool) -> None:
    x, y = digits()
    x = x.copy()
    x[100] = np.nan
    model, monitor = classifier(ck.SGD(0.1)), ck.HealthMonitor(every=3, print_fn=lambda text: None)
    callback = ck.TensorBoardStatistics(tmp_path, every=4, monitor=monitor if shared else None)
    callbacks = [monitor, callback] if shared else [callback]
    model.fit(x, y, shuffle=False, verbose=0, callbacks=callbacks)
    found = event_files.read(tmp_path / "health")
    texts = {tag: value for tag, value in found.items() if tag.startswith("text ")}
    assert list(texts) in (["text health/alert/nonfinite_gradient"], ["text health/alert/nonfinite_loss"])
    ((step, text),) = next(iter(texts.values()))
    assert step == 3 and text.decode().startswith("critical at update 3")
    assert callback.monitor.alerts[0].step == 3


@pytest.mark.slow
def test_beside_the_callback_of_keras_and_again(tmp_path: Path) -> None:
    """Which writes to "train" and "validation" of the same directory. A second `fit` adds a file."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "events.out.tfevents.1.host.v2").write_bytes(b"")
    model = regressor(ck.SGD(0.01))
    for _ in range(2):
        fit(tmp_path, model)
    assert len(list((tmp_path / "health").iterdir())) == 2
    assert event_files.read(tmp_path / "health")["scalars health/grad_norm"][-1][0] == 32


def test_a_fit_that_failed_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    def fail(batch: int, logs: Any) -> None:
        if batch == 5:
            raise KeyboardInterrupt

    model, callback = regressor(ck.SGD()), ck.TensorBoardStatistics(tmp_path, every=2)
    with contextlib.suppress(KeyboardInterrupt):
        failing = keras.callbacks.LambdaCallback(on_train_batch_begin=fail)
        model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback, failing])
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[callback])
    steps = [step for step, _ in event_files.read(tmp_path / "health")["scalars health/grad_norm"]]
    assert steps == [2, 4, 7, 9, 11, 13]  # it failed after 5 updates


# Bad input -----------------------------------------------------------------------------------------------


def test_files_of_another_writer(tmp_path: Path) -> None:
    (tmp_path / "health").mkdir()
    (tmp_path / "health" / "events.out.tfevents.1.host.v2").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"event files of another writer, events.out"):
        fit(tmp_path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="log_dir: cannot write"):
        fit(tmp_path / "file")


def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    from capibara_keras.backend.summaries import SummaryWriter

    with pytest.raises(ConfigError, match="written by TensorFlow, which cannot be imported"):
        SummaryWriter(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every"),
        ({"layers": "all"}, "layers"),
        ({"monitor": "mine"}, "monitor: expected a HealthMonitor"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ck.TensorBoardStatistics("logs", **options)


def test_another_optimizer(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="one optimizer of capibara_keras"):
        fit(tmp_path, regressor(keras.optimizers.SGD()))

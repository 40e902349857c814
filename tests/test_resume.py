"""`Resume`: a run killed in mid-epoch ends with the bits of one that never stopped; what cannot be is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras import resuming
from capibara_keras.resuming import archive
from tests import interrupted
from tests.models import regression, regressor, values
from tests.subprocess_runner import ROOT, run

PROGRAM = Path(interrupted.__file__)
QUICK = ["arrays", "tf.data"]
NOT_ON_JAX = {"tf.data", "tf.data, endless", "loss scaling", "arrays, step not compiled"}


@pytest.mark.slow
def test_the_same_bits() -> None:
    """Weights, optimizer with an open window, metrics, dropout, the history, another callback's state."""
    assert run(PROGRAM, ["compare", *QUICK]) == {name: [] for name in QUICK}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_the_same_bits_everywhere(backend: str) -> None:
    """All kinds of data, and all ways to compile."""
    names = [name for name in interrupted.CASES if backend == "tensorflow" or name not in NOT_ON_JAX]
    assert run(PROGRAM, ["compare", *names], backend=backend, timeout=900) == {name: [] for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_kill_9(backend: str, tmp_path: Path) -> None:
    """In processes of their own."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    run(PROGRAM, ["train", whole, "arrays"], backend=backend)
    with pytest.raises(AssertionError, match="exit code -9"):
        run(PROGRAM, ["train", broken, "arrays", 19], backend=backend)
    assert sorted(path.name for path in (broken / "run").iterdir()) == ["latest.run", "previous.run"]
    run(PROGRAM, ["train", broken, "arrays"], backend=backend)
    with np.load(whole / "end.npz") as expected, np.load(broken / "end.npz") as found:
        assert interrupted.differing(dict(expected), dict(found)) == []
    assert not (broken / "run").exists(), "a complete run leaves nothing"


# What is saved when -----------------------------------------------------------------------------------------


class Stop(keras.callbacks.Callback):
    """Ends the run as an error would, before a batch of the first epoch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == self.batch:
            raise interrupted.Killed


def fit(folder: Path, *callbacks: Any, every: int = 2, make: Any = ck.Adam, **options: Any) -> keras.Model:
    """Eight batches, eagerly; `options` are those of `data`."""
    model = regressor(make(), run_eagerly=True)
    resume = ck.Resume(folder, every)
    data = resume.data(regression(), **({"batch_size": 4} | options))
    model.fit(data, steps_per_epoch=data.steps, shuffle=False, verbose=0, callbacks=[resume, *callbacks])
    return model


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that ended before batch 5; batches 0 to 3 are saved."""
    with pytest.raises(interrupted.Killed):
        fit(tmp_path / "run", Stop(5))
    return tmp_path / "run"


def test_the_previous_state_takes_the_place_of_a_damaged_one(stopped: Path) -> None:
    assert archive.read(stopped / "latest.run")[0]["position"]["batch"] == 4
    assert archive.read(stopped / "previous.run")[0]["position"]["batch"] == 2
    content = (stopped / "latest.run").read_bytes()
    (stopped / "latest.run").write_bytes(content[:-100])
    with pytest.warns(UserWarning, match="damaged or not complete.*going on from previous.run"):
        assert resuming.load(stopped)[0]["position"]["batch"] == 2


@pytest.mark.parametrize("place", [0, 25, 500, -40, -1])
def test_a_flipped_bit_is_seen(place: int, stopped: Path) -> None:
    for name in ("latest.run", "previous.run"):
        content = bytearray((stopped / name).read_bytes())
        content[place] ^= 4
        (stopped / name).write_bytes(content)
    model = regressor(ck.Adam())
    before = values(model)
    with pytest.raises(ck.CheckpointError, match="no saved state can be read"):
        model.fit(*regression(), verbose=0, callbacks=[ck.Resume(stopped)])
    assert all(np.array_equal(a, b) for a, b in zip(values(model), before, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "is not the one that the saved run trained on"),
        ({"shuffle": False}, "is not the one that the saved run trained on"),
        ({"batch_size": 8}, "4 batches per epoch, and the saved run had 8"),
        ({"make": ck.SGD}, "saved by algorithm 'adam', this is 'sgd'"),
    ],
)
def test_another_run_is_refused(options: dict[str, Any], message: str, stopped: Path) -> None:
    with pytest.raises(ck.CheckpointError, match=message):
        fit(stopped, **options)
    assert archive.read(stopped / "latest.run")


def test_another_model_is_refused_and_untouched(stopped: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(ck.Adam(), "mse", run_eagerly=True)
    before = values(model)
    resume = ck.Resume(stopped)
    data = resume.data(regression(), 4)
    with pytest.raises(ck.CheckpointError, match=r"saved run has 4 variables \(model\), this model 2"):
        model.fit(data, steps_per_epoch=8, shuffle=False, verbose=0, callbacks=[resume])
    assert all(np.array_equal(a, b) for a, b in zip(values(model), before, strict=False))


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "FORMAT", 99)
    archive.write(tmp_path / "a.run", {}, {})
    monkeypatch.undo()
    with pytest.raises(ck.CheckpointError, match="format 99; this version reads up to 1"):
        archive.read(tmp_path / "a.run")


def test_half_precision_and_empty_arrays_survive(tmp_path: Path) -> None:
    import ml_dtypes

    arrays = {"a": np.array([1.5, -2], ml_dtypes.bfloat16), "b": np.zeros((0, 3)), "c": np.array(7)}
    archive.write(tmp_path / "a.run", {"x": float("inf")}, arrays)
    description, found = archive.read(tmp_path / "a.run")
    assert description == {"x": float("inf")}
    assert all(found[k].dtype == a.dtype and np.array_equal(found[k], a) for k, a in arrays.items())


# Disks and signals ------------------------------------------------------------------------------------------


def test_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was saved before stays."""

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(interrupted.Killed):
        fit(tmp_path, Stop(3))
    monkeypatch.setattr("os.fsync", full)
    with pytest.warns(UserWarning, match="the run goes on without: .*No space left"), pytest.raises(interrupted.Killed):
        fit(tmp_path, Stop(6))
    assert [path.name for path in tmp_path.iterdir()] == ["latest.run"]
    assert archive.read(tmp_path / "latest.run")[0]["position"]["batch"] == 2


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ck.ConfigError, match="directory: cannot write"):
        fit(tmp_path / "file" / "run")


def test_sigterm_saves(tmp_path: Path) -> None:
    """The process ends by the signal, after it has saved at the next batch."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
import keras
from tests.test_resume import fit

class Term(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 4:
            os.kill(os.getpid(), signal.SIGTERM)

fit(Path({str(tmp_path)!r}), Term(), every=100)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=240)
    assert done.returncode == -15, done.stderr.decode()[-3000:]
    assert archive.read(tmp_path / "latest.run")[0]["position"]["batch"] == 5


@pytest.mark.parametrize("fits", [1, 2])
def test_sigterm_after_a_fit_that_failed(fits: int, tmp_path: Path) -> None:
    """It is not waited for: nobody would save."""
    came: list[int] = []
    usual = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        for _ in range(fits):
            with pytest.raises(interrupted.Killed):
                fit(tmp_path, Stop(3))
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, usual)


# Data -------------------------------------------------------------------------------------------------------


def test_data_without_a_position_is_refused(tmp_path: Path) -> None:
    """Arrays that `fit` shuffles itself."""
    model = regressor(ck.Adam())
    with pytest.raises(ck.ConfigError, match=r"position in this data cannot be .*Use `data = resume.data"):
        model.fit(*regression(), verbose=0, callbacks=[ck.Resume(tmp_path)])


def test_steps_are_needed(tmp_path: Path) -> None:
    resume = ck.Resume(tmp_path)
    data = resume.data(regression(), 4)
    with pytest.raises(ck.ConfigError, match=r"give steps_per_epoch=data.steps \(8\), received 4"):
        regressor(ck.Adam()).fit(data, steps_per_epoch=4, shuffle=False, verbose=0, callbacks=[resume])


def test_data_without_the_callback_warn(tmp_path: Path) -> None:
    """Nothing would be saved, and nobody would know."""
    data = ck.Resume(tmp_path).data(regression(), 4)
    with pytest.warns(UserWarning, match=r"nothing is saved: give fit callbacks=\[resume\]"):
        regressor(ck.Adam()).fit(data, steps_per_epoch=data.steps, epochs=2, shuffle=False, verbose=0)


def test_a_model_that_is_not_built_is_refused(tmp_path: Path) -> None:
    """On the first run, not when it is too late."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(ck.Adam(), "mse")
    resume = ck.Resume(tmp_path)
    data = resume.data(regression(), 4)
    with pytest.raises(ck.ConfigError, match=r"the model is not built.*model.build\(input_shape\)"):
        model.fit(data, steps_per_epoch=data.steps, shuffle=False, verbose=0, callbacks=[resume])


def test_every_row_once_per_epoch(tmp_path: Path) -> None:
    data = ck.Resume(tmp_path).data(np.arange(10), 4)
    epochs = [np.concatenate([data[3 * epoch + i][0] for i in range(3)]) for epoch in range(2)]
    assert [sorted(rows.tolist()) for rows in epochs] == [list(range(10))] * 2
    assert not np.array_equal(*epochs)


class Changing(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 1

    def on_epoch_end(self) -> None:
        pass


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Changing(), "Changing has on_epoch_end"),
        ((np.zeros(0), np.zeros(0)), "arrays of one length"),
        ((np.zeros(2), np.zeros(3)), "arrays of one length"),
        (iter([1]), "A generator is read only once"),
        (lambda epoch: iter([1]), "has no length; give the batches of an epoch"),
    ],
)
def test_sources_that_cannot_be_read_again(source: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        ck.Resume(tmp_path).data(source)


def test_a_function_that_ends_early(tmp_path: Path) -> None:
    data = ck.Resume(tmp_path).data(lambda epoch: iter([(np.zeros(1),)]), steps=2)
    with pytest.raises(ck.ConfigError, match="ended before batch 1 of 2"):
        data[1]

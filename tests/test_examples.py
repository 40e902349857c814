"""The examples run, and the demo goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.subprocess_runner import ROOT, run

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


def example(name: str, *arguments: object) -> str:
    """What an example prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT | {"MPLBACKEND": "Agg"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def datasets(folder: Path) -> dict[str, np.ndarray]:
    """Everything in the only checkpoint of a run."""
    (path,) = folder.glob("*.weights.h5")
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_demo(tmp_path: Path) -> None:
    """It learns, and leaves weights, history, a figure and a sample."""
    printed = example("train_language_model.py", "--steps", 20, "--size", "tiny", "--out", tmp_path)
    assert "bits per byte" in printed
    losses = json.loads((tmp_path / "history.json").read_text())["updates"]["loss"]
    assert len(losses) == 20 and np.mean(losses[-5:]) < np.mean(losses[:5])
    assert {"curves.png", "curves.svg", "sample.txt", "history.json"} <= {p.name for p in tmp_path.iterdir()}


@pytest.mark.slow
def test_demo_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Stopped in mid-round and resumed: weights, optimizer state, history and sample of the run that never stopped."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ("--steps", 40, "--size", "tiny")
    example("train_language_model.py", *options, "--out", whole)
    example("train_language_model.py", *options, "--out", parts, "--stop-at", 17)
    example("train_language_model.py", *options, "--out", parts, "--resume")
    expected, found = datasets(whole), datasets(parts)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for name in ("history.json", "sample.txt"):
        assert (whole / name).read_text() == (parts / name).read_text()


@pytest.mark.slow
def test_fine_tuning() -> None:
    """It prints the table of variables, and the gain."""
    printed = example("finetune_classifier.py", "--quick")
    assert "rate x" in printed and "gain" in printed


@pytest.mark.slow
def test_diagnosis() -> None:
    """What is broken is named, and the healthy network is left in peace."""
    reports = dict(part.split(": mean loss ", 1) for part in example("diagnose_sick_training.py").strip().split("\n\n"))
    expected = {
        "a learning rate of 3": " times its norm",
        "a NaN in batch 60": "at update 60",
        "units that never fire": "32 of 32 units",
        "all units start equal": "units are equal",
        "a gradient that is cut off": "no gradient for 10 updates",
    }
    for name, sign in expected.items():
        assert sign in reports.pop(name), name
    assert list(reports) == ["healthy"] and "at update" not in reports["healthy"]


@pytest.mark.slow
def test_tuning(tmp_path: Path) -> None:
    """It prints a table and leaves a report; a second run has nothing left to do."""
    printed = example("tune_optimizer.py", "--quick", "--out", tmp_path)
    assert "tuned" in printed and "4/4  trial 3" in printed
    assert (tmp_path / "report" / "report.html").exists()
    assert "4/4  trial 3" not in example("tune_optimizer.py", "--quick", "--out", tmp_path)


@pytest.mark.slow
def test_tuning_a_language_model(tmp_path: Path) -> None:
    printed = example("tune_optimizer.py", "--quick", "--model", "language", "--out", tmp_path)
    assert "tuned" in printed


SMALL = ("compile_and_fit", "custom_loop", "schedules", "clipping", "accumulation", "own_algorithm")
"""Run in one process."""

TOGETHER = """
import contextlib, io, json, runpy, sys
printed = {}
for path in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(path, run_name="__main__")
    printed[path] = out.getvalue()
print(json.dumps(list(printed.values())))
"""


def paths(*names: str) -> list[str]:
    return [str(ROOT / "examples" / f"{name}.py") for name in names]


def test_small_examples() -> None:
    """Each prints what it is about."""
    printed = dict(zip(SMALL, run(TOGETHER, paths(*SMALL)), strict=True))
    assert "160 updates" in printed["compile_and_fit"]
    assert ", clipped" in printed["custom_loop"] and "after 104 updates" in printed["custom_loop"]
    assert printed["schedules"].count("█") > 20
    assert "[[0.6, 0.8], [0.0, 1.0]]" in printed["clipping"] and "was clipped to" in printed["clipping"]
    assert "9 batches, 3 updates" in printed["accumulation"]
    assert float(printed["accumulation"].split()[-1]) < 1e-5
    assert "1 update skipped" in printed["own_algorithm"]


@pytest.mark.slow
def test_two_replicas() -> None:
    (printed,) = run(TOGETHER, paths("two_replicas"))
    assert "2 replicas, 2 updates" in printed and float(printed.split()[-1]) < 1e-5


@pytest.mark.slow
def test_jax_data_parallel() -> None:
    (printed,) = run(TOGETHER, paths("jax_data_parallel"), backend="jax")
    assert "2 devices" in printed and "(8, 16), on each device (4, 16)" in printed


@pytest.mark.slow
def test_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of the founding document, in its order."""
    printed = example("seed.py")
    assert "Learning rate at step 50000: 3.39e-04" in printed and "resource_efficient: " in printed
    monkeypatch.chdir(tmp_path)
    printed = example("seed_training.py", "--quick")
    assert "Updates: 9" in printed and "3/3  trial 2" in printed and "  learning_rate: " in printed
    assert len(list((tmp_path / "runs" / "seed" / "plots").glob("*.png"))) == 4


def test_an_example_is_short() -> None:
    """One lesson. The demo is a program, with a module beside it."""
    for path in (ROOT / "examples").glob("*.py"):
        if path.name not in ("train_language_model.py", "language_model.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) < 100, path.name


def test_every_example_is_run() -> None:
    """And is in the README or in the list of examples."""
    tests = Path(__file__).read_text(encoding="utf-8")
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*.py"):
        if "__main__" in path.read_text(encoding="utf-8"):
            assert path.name in tests or f'"{path.stem}"' in tests, path.name
            assert path.name in page, path.name

"""A search that is cut off at any moment goes on as if it had not been."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.tuning import loop, state
from capibara_keras.tuning.budget import Budget
from capibara_keras.tuning.data import Validation
from capibara_keras.tuning.halving import Halving, Rungs
from capibara_keras.tuning.identity import identity, known_trials
from capibara_keras.tuning.metric import Metric
from capibara_keras.tuning.oracle import Oracle
from capibara_keras.tuning.runner import Task
from capibara_keras.tuning.search_space import SearchSpace
from capibara_keras.tuning.trials import Search, TrialRecord
from tests.subprocess_runner import ROOT
from tests.thinning import thinned
from tests.tuning.common import search, tuner

SPACE = SearchSpace.parse(
    {
        "learning_rate": [1e-4, 1e2, "log"],
        "algorithm": ["adam", "sgd", "choice"],
        "momentum": [0.0, 0.9, "uniform"],
    }
)


class Killed(BaseException):
    """Stands for the end of the process."""


class Stub:
    """A runner without a model: a curve of four evaluations that goes to a parabola, NaN for large rates."""

    def run(self, options: dict[str, Any], report: Any, worth: Any) -> Any:
        x = np.log10(options["learning_rate"]) + options.get("momentum", 0.2)
        for step in range(1, 5):
            value = float("nan") if x > 1 else (x + 1) ** 2 + 1 / step
            if not report(step, {"val_loss": value, "loss": value}):
                return None
        return [np.array(value)] if worth(value) else None

    def save(self, weights: Any, path: Path) -> None:
        np.save(path.with_suffix(".npy"), weights[0])
        path.with_suffix(".npy").rename(path)


def project_search(folder: Path, trials: int = 14, algorithm: str = "bayesian_optimization") -> list[TrialRecord]:
    """What `OptimizerAutoTuner` does, with a stub for the training."""
    project = state.Project(folder)
    known = project.load()
    records = [TrialRecord.from_json(data) for data in known["trials"]] if known else []
    start = Search(SPACE, records, False, trials, 3)

    def ended(record: TrialRecord, now: Search) -> None:
        best = now.best()
        project.keep_only([t.number for t in now.trials if not t.done] + ([best.number] if best else []))

    oracle = Oracle(
        start,
        algorithm,
        Metric("val_loss", maximize=False),
        Rungs(Halving((0.25, 0.5)), 4),
        lambda options: 0,
        project,
        {},
        on_end=ended,
    )
    loop.Loop(oracle, Stub, project).search()  # type: ignore[arg-type]
    return list(oracle.current().trials)


def essence(trials: list[TrialRecord]) -> list[dict[str, Any]]:
    """What must be the same: all but the time that it took."""
    return [{k: v for k, v in t.to_json().items() if k != "seconds"} for t in trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The search that nobody interrupts."""
    return essence(project_search(tmp_path_factory.mktemp("whole") / "p"))


def calls(monkeypatch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Let the process die at the `at`-th call to the file system."""
    count = [0]

    def dying(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == at:
                raise Killed
            return function(*args, **kwargs)

        return call

    for owner, name in ((os, "replace"), (os, "fsync"), (Path, "write_text"), (state.shutil, "copyfile")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    return count


def moments() -> Iterator[int]:
    """Calls at which to die: all of the first three trials, then some."""
    yield from range(1, 26)
    yield from range(27, 160, 12)


def test_the_search_is_interesting(whole: list[dict[str, Any]]) -> None:
    """It has everything that could be lost."""
    assert {t["status"] for t in whole} == {"completed", "pruned", "diverged"}


@pytest.mark.parametrize("at", thinned(moments(), 4))
def test_death_at_any_write(
    at: int, whole: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        count = calls(patched, at)
        with contextlib.suppress(Killed):
            project_search(tmp_path / "p")
        assert count[0] >= at, "the search has fewer calls: choose earlier moments"
    assert essence(project_search(tmp_path / "p")) == whole
    names = {path.name for path in (tmp_path / "p").iterdir()}
    best = min((t for t in whole if t["status"] == "completed"), key=lambda t: t["score"])["number"]
    assert {n for n in names if n.startswith("best_")} == {f"best_{best:04d}.weights.h5"}


def test_death_in_the_middle_of_a_file(whole: list[dict[str, Any]], tmp_path: Path) -> None:
    """A half-written temporary file is nobody's business, and is removed."""
    project_search(tmp_path / "p", trials=5)
    (tmp_path / "p" / "writing_999999999_search.json").write_text('{"format": 1, "tri')
    (tmp_path / "p" / "writing_999999999_best_0001.weights.h5").write_text("half")
    assert essence(project_search(tmp_path / "p")) == whole
    assert not list((tmp_path / "p").glob("writing*"))


def test_a_damaged_file_has_a_backup(whole: list[dict[str, Any]], tmp_path: Path) -> None:
    """It loses the last change at most."""
    project_search(tmp_path / "p", trials=6)
    path = tmp_path / "p" / "search.json"
    path.write_text(path.read_text()[:100])
    with pytest.warns(UserWarning, match="is damaged or missing: going on from search.backup.json"):
        assert essence(project_search(tmp_path / "p")) == whole


def test_two_damaged_files_are_left_alone(tmp_path: Path) -> None:
    project_search(tmp_path / "p", trials=3)
    for name in ("search.json", "search.backup.json"):
        (tmp_path / "p" / name).write_text("[]")
    with pytest.raises(ck.ConfigError, match="cannot be read as a search: damaged, or of another program"):
        project_search(tmp_path / "p")
    assert (tmp_path / "p" / "search.json").read_text() == "[]"


@pytest.mark.parametrize("algorithm", thinned(["keras_tuner_bayesian", "random", "grid", "hyperband"], 2))
def test_every_algorithm_resumes(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """keras-tuner's own grid and Bayesian oracles do not, alone."""
    trials = 11
    expected = essence(project_search(tmp_path / "whole", trials, algorithm))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        calls(patched, 30)
        project_search(tmp_path / "p", trials, algorithm)
    assert essence(project_search(tmp_path / "p", trials, algorithm)) == expected


# With a model --------------------------------------------------------------------------------------------


def test_a_search_goes_on(tmp_path: Path) -> None:
    """Interrupted, and with more trials: as if it had been one. What has ended is not done again."""
    one, two = tuner(tmp_path / "a", trials=5), tuner(tmp_path / "b", trials=3)
    whole, _ = search(one), search(two)
    more = tuner(tmp_path / "b", trials=5)
    assert search(more) == whole
    assert essence(more.trials) == essence(one.trials)
    assert [t.seconds for t in more.trials[:3]] == [t.seconds for t in two.trials]


def same(base: dict[str, Any], units: int = 3, batch_size: int = 32) -> dict[str, Any]:
    """The identity of a search over this base."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])
    task = Task(lambda: None, Validation(None, None, batch_size), Budget.of(8), None, Metric("val_loss", False))
    return identity(Search(SPACE, [], False, 3, 0), "random", None, task, base, model)


def test_a_schedule_beside_what_is_searched_is_the_same_in_the_next_process() -> None:
    """Though it is another object, with another address."""
    cosine = keras.optimizers.schedules.CosineDecay
    one, again, other = (same({"learning_rate": cosine(rate, 100)}) for rate in (0.1, 0.1, 0.2))
    assert one == again != other
    assert same({"learning_rate": lambda step: 0.1}) == same({"learning_rate": lambda step: 0.1})


def test_another_model_in_the_directory(tmp_path: Path) -> None:
    """The default directory is the same for all: what was found for one model is not the answer for another."""
    project = state.Project(tmp_path)
    project.save({"search": same({}), "trials": []})
    assert known_trials(project, same({})) == []
    with pytest.raises(ck.ConfigError, match=r"another model: '2 variables with 9 numbers'.*12 numbers"):
        known_trials(project, same({}, units=4))
    with pytest.raises(ck.ConfigError, match="another batch_size: 32, and this one has 16"):
        known_trials(project, same({}, batch_size=16))


def test_a_search_of_the_first_version_goes_on(tmp_path: Path) -> None:
    """Its file says nothing about the model."""
    project, old = state.Project(tmp_path), same({})
    for name in ("model", "batch_size", "validation_steps"):
        del old[name]
    project.save({"search": old, "trials": [TrialRecord(0, {"learning_rate": 0.1}, "completed", 0.5).to_json()]})
    assert len(known_trials(project, same({}))) == 1


@pytest.mark.slow
def test_another_search_in_the_directory(tmp_path: Path) -> None:
    """Named, and untouched unless that is asked for."""
    search(tuner(tmp_path, trials=2))
    kept = (tmp_path / "search" / "search.json").read_text()
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"space": {"learning_rate": [1e-3, 1.0, "log"]}}, {}, "search_space"),
        ({"seed": 4}, {}, "seed"),
        ({"search_algorithm": "random"}, {}, "search_algorithm"),
        ({"early_termination": "none"}, {}, "early_termination"),
        ({"optimization_metric": "loss"}, {}, "optimization_metric"),
        ({}, {"steps": 8}, "max_steps_per_trial"),
        ({}, {"early_stopping_patience": 8}, "early_stopping_patience"),
    ]
    for options, arguments, name in cases:
        with pytest.raises(ck.ConfigError, match=f"another {name}: .*overwrite=True"):
            search(tuner(tmp_path, trials=2, **options), **arguments)
    assert (tmp_path / "search" / "search.json").read_text() == kept
    search(tuner(tmp_path, trials=1, seed=4, overwrite=True))
    assert len(json.loads((tmp_path / "search" / "search.json").read_text())["trials"]) == 1


def test_two_processes_in_one_directory(tmp_path: Path) -> None:
    found = tuner(tmp_path)
    with found.project.locked(), pytest.raises(ck.ConfigError, match="another process searches"):
        search(tuner(tmp_path))


PROGRAM = """
import os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.tuning.common import search, tuner, network
real = os.fsync
def slow(file):  # so that some of the kills hit in mid-write
    time.sleep(0.02)
    real(file)
os.fsync = slow
model = network()
print("started", flush=True)
search(tuner(Path(sys.argv[1]), trials=12), model)
print("finished", flush=True)
"""


@pytest.mark.slow
def test_kill_9(tmp_path: Path) -> None:
    """Twelve times at random moments."""
    expected = tuner(tmp_path / "whole", trials=12)
    search(expected)
    rng, kills, finished = random.Random(0), 0, False
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(tmp_path / "killed")]
    while not finished:
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        if kills < 12:
            time.sleep(rng.uniform(0.3, 2.5))
            child.send_signal(signal.SIGKILL)
            kills += 1
        out, errors = child.communicate()
        finished = "finished" in out
        assert finished or child.returncode == -signal.SIGKILL, errors[-3000:]
    done = tuner(tmp_path / "killed", trials=12)
    search(done)
    assert kills >= 10
    assert [t.options for t in done.trials] == [t.options for t in expected.trials]
    for a, b in zip(done.trials, expected.trials, strict=True):
        assert a.status == b.status and a.curve["step"] == b.curve["step"]
        np.testing.assert_allclose(a.curve["val_loss"], b.curve["val_loss"], rtol=1e-6)

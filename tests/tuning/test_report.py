"""The numbers and files of the report, progress, and early termination."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import capibara_keras as ck
from capibara_keras.tuning import Halving, SearchSpace, TrialRecord, progress, report
from capibara_keras.tuning.figures import FIGURES
from capibara_keras.tuning.halving import EARLY_TERMINATION, Rungs
from capibara_keras.tuning.hparams import write_tensorboard
from capibara_keras.tuning.importance import best_so_far, importance
from capibara_keras.tuning.trials import Search

SPACE = SearchSpace.parse(
    {
        "learning_rate": [1e-4, 1.0, "log"],
        "algorithm": ["adam", "sgd", "choice"],
        "momentum": [0.0, 0.9, "uniform"],
        "weight_decay": [0.0, 0.1, "uniform"],
    }
)


def made(count: int = 24, maximize: bool = False) -> Search:
    """A search in which the rate decides nearly everything, and some trials are pruned, diverge or fail."""
    rng, trials = np.random.default_rng(0), []
    for n in range(count):
        options = SPACE.values(rng.random(4))
        loss = (math.log10(options["learning_rate"]) + 2) ** 2 + options["weight_decay"] + 0.5
        score = -loss if maximize else loss
        status = {5: "diverged", 7: "failed"}.get(n, "pruned" if loss > 2 else "completed")
        curve = {"step": [10, 20], "val_loss": [score + 1, score], "loss": [math.nan, score]}
        score = math.nan if status in ("diverged", "failed") else score
        trials.append(TrialRecord(n, options, status, score, 20, 20, curve, 2.0, "Error <x>" if n == 7 else ""))
    return Search(SPACE, trials, maximize, 30, 0)


def test_records_survive_json() -> None:
    for trial in made().trials:
        text = json.dumps(trial.to_json(), allow_nan=False)
        back = TrialRecord.from_json(json.loads(text))
        assert back.to_json() == trial.to_json()
        assert math.isnan(back.score) == math.isnan(trial.score)


def test_tensorboard_reads_the_trials(tmp_path: Path) -> None:
    """By its own readers: options, how each trial ended, the curve. Written again, nothing is there twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    search = made()
    running = dataclasses.replace(search.trials[-1], status="running", score=math.nan)
    for seen in (dataclasses.replace(search, trials=[*search.trials[:-1], running]), search, search):
        write_tensorboard(seen, tmp_path)  # a trial that runs comes when it has ended
    assert len(list(tmp_path.rglob("events*"))) == len(search.trials)
    for trial in search.trials:
        events = EventAccumulator(str(tmp_path / f"trial_{trial.number:04d}")).Reload()
        content = events.PluginTagToContent("hparams")
        start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
        found = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
        assert found == trial.options
        end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG])
        good = trial.status in ("completed", "pruned")
        assert end.status == (api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE)
        curve = [(event.step, event.value) for event in events.Scalars("val_loss")]
        np.testing.assert_allclose(
            curve, list(zip(trial.curve["step"], trial.curve["val_loss"], strict=True)), rtol=1e-6
        )


@pytest.mark.parametrize("maximize", [False, True])
def test_best(maximize: bool) -> None:
    """Of those measured in full; the curve of the best so far never gets worse."""
    search = made(maximize=maximize)
    best = search.best()
    assert best is not None and best.status == "completed"
    scores = [t.score for t in search.trials if t.status == "completed"]
    assert best.score == (max if maximize else min)(scores)
    curve = [x for x in best_so_far(search) if not math.isnan(x)]
    assert curve[-1] == best.score and (np.diff(curve) >= 0 if maximize else np.diff(curve) <= 0).all()


def test_importance_finds_what_matters() -> None:
    shares = importance(made(40))
    assert shares["learning_rate"] > 0.8
    assert max(v for k, v in shares.items() if k != "learning_rate") < 0.1
    assert all(math.isnan(x) for x in importance(made(5)).values())


@pytest.mark.parametrize("maximize", [False, True])
def test_files(maximize: bool, tmp_path: Path) -> None:
    """Each can be read by what reads such files."""
    search = made(maximize=maximize)
    files = report.write(search, "val_loss", tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == set(files)
    for name, path in files.items():
        if name.endswith("png"):
            pixels = np.asarray(Image.open(path).convert("L"))
            assert pixels.std() > 5, f"{name} is empty"
        elif name.endswith("svg"):
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    rows = list(csv.DictReader(files["trials.csv"].open(encoding="utf-8")))
    assert len(rows) == 24 and rows[5]["score"] == "" and float(rows[0]["learning_rate"]) > 0
    assert json.loads(files["trials.json"].read_text())[5]["score"] is None
    page = files["report.html"].read_text()
    assert page.count("<svg") == len(FIGURES) and "<x>" not in page


def test_a_report_of_a_search_without_a_score(tmp_path: Path) -> None:
    """Also where a logarithmic axis has no point."""
    lost = [TrialRecord(n, SPACE.values([0.5] * 4), "diverged") for n in range(3)]
    files = report.write(Search(SPACE, lost, False, 3, 0), "val_loss", tmp_path)
    assert "no result" in files["report.html"].read_text()


def test_a_report_needs_trials(tmp_path: Path) -> None:
    with pytest.raises(ck.ConfigError, match="no trials yet"):
        report.write(Search(SPACE, [], False, 3, 0), "val_loss", tmp_path)
    with pytest.raises(ck.ConfigError, match="no search yet"):
        ck.OptimizerAutoTuner({"learning_rate": [0.1, 0.2, "log"]}, directory=tmp_path).report()


def test_progress() -> None:
    search = made(24)
    assert progress.remaining(search) == 6 * 2.0
    line = progress.line(search.trials[-1], search, "val_loss", 80)
    assert "24/30  trial 23" in line and "12.0 s left" in line and "at 20/80" in line
    rows = progress.table(search, "val_loss").splitlines()
    assert len(rows) == 25 and {len(row) for row in rows[:2]} == {len(rows[0])}
    kinds = [row.split()[3] for row in rows[1:]]
    assert kinds == sorted(kinds, key=["completed", "pruned", "diverged", "failed"].index)


# Early termination ---------------------------------------------------------------------------------------


def test_half_of_random_trials_pass_a_rung() -> None:
    """The share that goes on is 1/factor at each rung, whatever the losses are."""
    for factor in (2.0, 3.0):
        rungs, rng = Rungs(Halving((0.25, 0.5), factor), 100), np.random.default_rng(0)
        passed = [rungs.keeps(n, 0, 25, x, 0) for n, x in enumerate(rng.normal(size=600))]
        assert np.mean(passed) == pytest.approx(1 / factor, abs=0.05)


def test_the_best_so_far_is_never_stopped() -> None:
    rungs = Rungs(EARLY_TERMINATION["successive_halving"], 80)
    assert all(rungs.keeps(n, step - 10, step, 1 / (n + 1), 0) for n in range(20) for step in (10, 30))


def test_brackets_start_later_in_turn() -> None:
    hyperband = EARLY_TERMINATION["hyperband"]
    assert hyperband is not None
    assert [len(hyperband.rungs_of(n)) for n in range(5)] == [3, 2, 1, 0, 3]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rungs": (0.5, 0.25)}, "increasing"),
    ({"rungs": (0.0,)}, r"rungs: expected a number in \(0, 1\)"),
    ({"factor": 1.0}, "factor"),
    ({"brackets": 4}, "brackets"),
]


@pytest.mark.parametrize("options, message", BAD)
def test_bad_halving(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        Halving(**options)

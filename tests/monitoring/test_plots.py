"""Histories as arrays, and figures of them."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import capibara_keras as ck
from capibara_keras.errors import ConfigError
from capibara_keras.monitoring import plots
from capibara_keras.monitoring.plots import types
from capibara_keras.monitoring.reader import read
from capibara_keras.records import StepRecord

NAN = math.nan


def columns(n: int = 6, **changes: Any) -> dict[str, Any]:
    series = {
        name: [1.0 + i for i in range(n)] for name in ("learning_rate", "gradient_norm", "parameter_norm", "loss")
    }
    return series | {"update_norm": [0.1] * n, "clip_threshold": [3.0] * n, "clipped": [False] * n} | changes


def record(i: int) -> StepRecord:
    return StepRecord(i, 0.1, 2.0 + i, 3.0, 0.2, 0.0, 1.0, clipped=i == 1, skipped=False, loss=4.0)


# Reading -------------------------------------------------------------------------------------------------


def as_file(rows: list[Any], folder: Path) -> Path:
    path = folder / "run.jsonl"
    path.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "form",
    [
        lambda rows, folder: rows,
        lambda rows, folder: [dict(row) for row in rows],
        lambda rows, folder: {name: [row[name] for row in rows] for name in rows[0]},
        as_file,
    ],
    ids=["records", "dictionaries", "columns", "file"],
)
def test_all_forms_read_the_same(form: Callable[[list[StepRecord], Path], Any], tmp_path: Path) -> None:
    history = read(form([record(i) for i in (5, 6, 7)], tmp_path))
    assert (history.unit, history.step.tolist()) == ("update", [5, 6, 7])
    assert history.gradient_norm.tolist() == [7, 8, 9]
    assert history.clipped.tolist() == [0, 0, 0]
    assert history.loss.tolist() == [4, 4, 4]


def test_keras_history_counts_epochs_and_its_counters_are_no_flags() -> None:
    history = read(SimpleNamespace(history={"loss": [2.0, 1.0], "clipped": [1, 1]}, epoch=[3, 4]))
    assert (history.unit, history.step.tolist()) == ("epoch", [3, 4])
    assert not history.knows("clipped")


def test_lines_with_alerts_null_and_a_torn_end(tmp_path: Path) -> None:
    alert = {"alert": {"id": "lr_zero", "level": "warning", "message": "m", "step": 1, "value": None}}
    path = as_file([{"update": 0, "loss": None}, {"update": 1, "loss": 2.0}, alert], tmp_path)
    path.write_text(path.read_text() + '{"update": 2, "lo')
    history = read(path)
    assert history.loss[1] == 2.0 and math.isnan(history.loss[0]) and len(history.loss) == 2
    assert [(a.id, a.step) for a in history.alerts] == [("lr_zero", 1)]
    assert math.isnan(history.alerts[0].value)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text('{"loss": 1}\nrubbish\n{"loss": 1}\n')
    with pytest.raises(ConfigError, match=r"run.jsonl:2"):
        read(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty"),
        ({}, "empty"),
        ({"loss": []}, "empty"),
        ({"losses": [1.0]}, "empty"),
        (SimpleNamespace(history={}), "empty"),
        (3, "received int"),
        ([1.0], r"metrics_history\[0\]"),
        ({"loss": [1.0], "learning_rate": [1.0, 2.0]}, "loss 1"),
        ({"loss": ["high"]}, "loss is no list of numbers"),
        ([{"alert": {"level": "info"}}], "alert needs"),
        ("no/such/file", "cannot read"),
    ],
)
def test_bad_histories(source: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(source)


# Numbers -------------------------------------------------------------------------------------------------


def test_path_is_before_the_update_interpolated_and_skips_stay() -> None:
    history = read(columns(6, update_norm=[1.0, NAN, 3.0, 5.0, NAN, 5.0], skipped=[0, 0, 0, 0, 1, 0]))
    assert types.path_numbers(history)["x"].tolist() == [0, 1, 3, 6, 11, 11]


def test_ratio_is_unknown_where_a_norm_is() -> None:
    history = read(columns(4, parameter_norm=[2.0, 0.0, NAN, 4.0], update_norm=[1.0, 1.0, 1.0, math.inf]))
    assert types.update_numbers(history)["ratio"].tolist() == pytest.approx([0.5, NAN, NAN, NAN], nan_ok=True)


def test_marks_of_the_gradient() -> None:
    history = read(columns(4, gradient_norm=[5.0, math.inf, 0.0, NAN], clipped=[1, 1, 0, 0], skipped=[0, 0, 0, 1]))
    numbers = types.gradient_numbers(history)
    assert numbers["clipped"].tolist() == [True, False, False, False]
    assert numbers["nonfinite"].tolist() == [False, True, False, True]
    assert numbers["zero"].tolist() == [False, False, True, False]


# Drawing -------------------------------------------------------------------------------------------------

ODD = {
    "one point": columns(1),
    "constant": {name: [1.0] * 5 for name in columns()},
    "zero": {name: [0.0] * 5 for name in columns()},
    "unknown ends": {name: [NAN, 1.0, NAN] for name in columns()},
    "infinite": {name: [math.inf] * 3 for name in columns()},
}


@pytest.mark.parametrize("history", ODD.values(), ids=ODD)
def test_odd_histories_draw_without_warnings(history: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in plots.generate(history, list(plots.PLOTS)).values():
            figure.draw_without_rendering()


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_labels_axes_marks_and_alerts() -> None:
    rows: list[dict[str, Any]] = [dict(record(i)) for i in range(4)]
    rows += [{"alert": {"id": f"rule{i}", "level": "critical", "message": "", "step": 2}} for i in range(7)]
    figures = plots.generate(rows, list(plots.PLOTS))
    assert all(axes.get_ylabel() for figure in figures.values() for axes in figure.axes)
    assert all(figure.axes[-1].get_xlabel() for figure in figures.values())
    gradient = figures["gradient_norm_evolution"]
    assert texts(gradient)[:4] == ["before clipping", "limit of clipping", "clipped", "critical: rule0"]
    assert texts(gradient)[-1] == "other alerts (2 kinds)"
    assert "not a landscape" in figures["loss_landscape_approximation"].axes[0].get_title()
    assert figures["learning_rate_schedule"].axes[0].get_yscale() == "linear"


def test_axes_fit_the_numbers() -> None:
    """A log axis only for numbers that span much, a constant rate in the middle of no zoom, whole updates as ticks."""
    few = plots.generate({"learning_rate": [0.1] * 4, "gradient_norm": [3.0, 2.0, 1.5, 1.4]})
    wide = plots.generate({"gradient_norm": [300.0, 2.0, 1.5, 1.4]})
    assert few["gradient_norm_evolution"].axes[0].get_yscale() == "linear"
    assert wide["gradient_norm_evolution"].axes[0].get_yscale() == "log"
    assert few["learning_rate_schedule"].axes[0].get_ylim()[0] == 0.0
    for figure in few.values():
        figure.draw_without_rendering()
        assert all(tick.is_integer() for tick in figure.axes[0].get_xticks())


def test_a_line_breaks_where_training_went_back() -> None:
    figure = plots.generate({"update": [0, 1, 2, 1, 2], "learning_rate": [1.0] * 5})["learning_rate_schedule"]
    assert np.isnan(figure.axes[0].lines[0].get_xdata()).tolist() == [False, False, False, True, False, False]


def test_nothing_overlaps() -> None:
    """Titles, labels and the legend of the fullest figures."""
    rows: list[dict[str, Any]] = [dict(record(i)) for i in range(4)]
    rows += [{"alert": {"id": f"a_rule_{i}", "level": "critical", "message": "", "step": 2}} for i in range(7)]
    for figure in plots.generate(rows).values():
        figure.draw_without_rendering()
        parts = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
        boxes = [
            p.get_window_extent() for p in [*parts, figure.legends[0]] if not hasattr(p, "get_text") or p.get_text()
        ]
        assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


# Choosing and saving -------------------------------------------------------------------------------------


def generate(*args: Any, **options: Any) -> dict[str, Any]:
    return ck.Optimizer("sgd").generate_training_plots(*args, **options)


def test_default_is_what_the_history_allows() -> None:
    assert list(generate({"learning_rate": [1.0]})) == ["learning_rate_schedule"]
    assert list(generate(columns())) == list(plots.PLOTS)


def test_saves_png_and_svg_and_leaves_nothing_else(tmp_path: Path) -> None:
    paths = generate(columns(), ["parameter_updates"], save_plots=True, plot_directory=tmp_path / "new")
    assert paths == {"parameter_updates": tmp_path / "new" / "parameter_updates.png"}
    assert paths["parameter_updates"].read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "new" / "parameter_updates.svg").read_text()
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plot_types": ["learning_rate_scedule"]}, "Did you mean 'learning_rate_schedule'"),
        ({"plot_types": "parameter_updates"}, "expected a list"),
        ({"plot_types": ["loss_landscape_approximation"]}, "needs loss and update_norm"),
        ({"save_plots": "yes"}, "save_plots"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate({"learning_rate": [1.0]}, **options)


def test_a_history_for_no_plot() -> None:
    with pytest.raises(ConfigError, match="parameter_updates needs parameter_norm and update_norm"):
        generate({"loss": [1.0]})


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="plot_directory"):
        generate(columns(), save_plots=True, plot_directory=tmp_path / "taken")


def test_axes_fit_what_they_show() -> None:
    """A constant rate is no line between two decimals; spikes do not hide how the loss falls."""
    history = {"learning_rate": [0.02] * 4, "loss": [900.0, 2.0, 1.0, 0.5], "update_norm": [1.0] * 4}
    figures = plots.generate(history)
    (rate,), (path,) = (figures[name].axes for name in ("learning_rate_schedule", "loss_landscape_approximation"))
    assert rate.get_ylim()[0] == 0 and path.get_yscale() == "log"
    (negative,) = plots.generate(history | {"loss": [900.0, 2.0, -1.0, -5.0]})["loss_landscape_approximation"].axes
    assert negative.get_yscale() == "linear"


def test_updates_that_were_all_skipped_are_seen() -> None:
    """They have one index, at which no line is long."""
    rows = {"update": [0] * 4, "parameter_norm": [2.0] * 4, "update_norm": [0.0] * 4, "skipped": [1.0] * 4}
    figure = plots.generate(rows)["parameter_updates"]
    upper, lower = figure.axes
    assert {"no change"} <= set(upper.get_legend_handles_labels()[1])
    assert "." in [line.get_marker() for line in lower.get_lines()]
    assert upper.get_yscale() == "log"

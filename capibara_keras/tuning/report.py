"""What a search found, as files: figures (PNG, SVG), a page (HTML), tables (CSV, JSON), TensorBoard's HParams."""

from __future__ import annotations

import csv
import html
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras.errors import ConfigError
from capibara_keras.files import write_whole
from capibara_keras.tuning import progress
from capibara_keras.tuning.domains import Choice, Dimension, Range
from capibara_keras.tuning.surrogate import fitted, standardised
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["FIGURES", "best_so_far", "importance", "write", "write_tensorboard"]


# Numbers -------------------------------------------------------------------------------------------------


def best_so_far(search: Search) -> list[float]:
    """After each trial the best score of those measured in full; `nan` before the first."""
    result, best = [], math.nan
    for trial in search.trials:
        if trial.status == "completed":
            better = math.isnan(best) or search.loss(trial) < (-best if search.maximize else best)
            best = trial.score if better else best
        result.append(best)
    return result


def importance(search: Search) -> dict[str, float]:
    """Share of each option in the variance of the loss over the space, that of interactions left out; `nan` with
    fewer than 8 scores.

    First-order Sobol indices (Saltelli et al. 2010, eq. b of Table 2) of the mean of the Gaussian process.
    """
    scored = [t for t in search.trials if t.done and math.isfinite(search.loss(t))]
    names = [d.name for d in search.space.searched]
    if len(scored) < 8:
        return dict.fromkeys(names, math.nan)
    features = np.array([search.space.features(t.options) for t in scored])
    model = fitted(features, standardised([search.loss(t) for t in scored]), search.seed)
    rng = np.random.default_rng(search.seed)
    a, b = rng.random((2, 1024, len(search.space.dimensions)))

    def mean(points: np.ndarray) -> np.ndarray:
        values = [search.space.features(search.space.values(point)) for point in points]
        return np.asarray(model.predict(np.array(values)))

    f_a, f_b = mean(a), mean(b)
    variance = max(float(np.var(np.concatenate([f_a, f_b]))), 1e-12)
    shares = {}
    for i, d in enumerate(search.space.dimensions):
        if not d.fixed:
            mixed = a.copy()
            mixed[:, i] = b[:, i]
            shares[d.name] = float(np.clip(np.mean(f_b * (mean(mixed) - f_a)) / variance, 0, 1))
    return shares


# Figures -------------------------------------------------------------------------------------------------

COLOURS = {"completed": "#2463a8", "pruned": "#e0a030", "diverged": "#c03030", "failed": "#777777"}


def draw_best(search: Search, metric: str, figure: Any) -> None:
    """Scores in the order of the trials, and the best so far."""
    axes = figure.subplots()
    for status, colour in COLOURS.items():
        chosen = [t for t in search.trials if t.status == status and math.isfinite(t.score)]
        if chosen:
            axes.scatter([t.number for t in chosen], [t.score for t in chosen], 18, colour, label=status)
    axes.step(range(len(search.trials)), best_so_far(search), "k", where="post", label="best so far")
    lost = [t.number for t in search.trials if t.status in ("diverged", "failed")]
    if lost:
        ticks = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.scatter(lost, [0.98] * len(lost), 25, COLOURS["diverged"], marker="x", label="diverged or failed", **ticks)
    axes.set(xlabel="trial", ylabel=metric, title="Best so far")
    _scaled(axes, search)
    axes.legend(fontsize=8)


def draw_curves(search: Search, metric: str, figure: Any) -> None:
    """The metric of every trial while it ran; the best one in front."""
    axes, best = figure.subplots(), search.best()
    for trial in search.trials:
        values = trial.curve.get(metric, [])
        mine = best is not None and trial.number == best.number
        style = {"color": "black", "linewidth": 2, "zorder": 3, "label": f"trial {trial.number}, the best"}
        other = {"color": COLOURS.get(trial.status, "#777777"), "linewidth": 0.8, "alpha": 0.6}
        if values:
            axes.plot(
                trial.curve["step"][: len(values)], values, **(style if mine else other), marker=".", markersize=3
            )
    for status, colour in COLOURS.items():
        if any(t.status == status and t.curve.get(metric) for t in search.trials):
            axes.plot([], [], color=colour, label=status)
    axes.set(xlabel="step (batch)", ylabel=metric, title="Learning curves")
    _scaled(axes, search)
    axes.legend(fontsize=8)


def draw_parallel(search: Search, metric: str, figure: Any) -> None:
    """A line for each trial through the values of its options; dark ones are good."""
    import matplotlib

    axes, dimensions = figure.subplots(), search.space.searched
    scored = [t for t in search.trials if math.isfinite(t.score)]
    ranked = sorted(scored, key=lambda t: -search.loss(t))
    colours = matplotlib.colormaps["viridis_r"]
    for place, trial in enumerate(ranked):
        heights = [
            d.domain.position(trial.options[d.name]) if d.name in trial.options else math.nan for d in dimensions
        ]
        share = place / max(len(ranked) - 1, 1)
        axes.plot(range(len(dimensions)), heights, color=colours(share), alpha=0.25 + 0.7 * share, marker=".")
    for i, d in enumerate(dimensions):
        axes.axvline(i, color="#999999", linewidth=0.6, zorder=0)
        for value in d.domain.values if isinstance(d.domain, Choice) else (d.domain.low, d.domain.high):
            height = d.domain.position(value)
            axes.annotate(
                progress.number(value),
                (i, height),
                fontsize=7,
                ha="right",
                va="center",
                xytext=(-4, 0),
                textcoords="offset points",
            )
    axes.set_xticks(range(len(dimensions)), [d.name for d in dimensions], rotation=20, ha="right", fontsize=8)
    axes.set(
        yticks=[], xlim=(-0.5, len(dimensions) - 0.7), ylim=(-0.05, 1.05), title=f"Options of all trials by {metric}"
    )
    span = matplotlib.colors.Normalize(0, 1)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(span, colours), ax=axes, ticks=[0, 1], pad=0.02)
    bar.ax.set_yticklabels(["worst", "best"], fontsize=8)


def draw_slices(search: Search, metric: str, figure: Any) -> None:
    """The score against each option."""
    dimensions = search.space.searched
    columns = min(3, len(dimensions))
    grid = np.atleast_1d(figure.subplots(-(-len(dimensions) // columns), columns, squeeze=False)).ravel()
    for axes, d in zip(grid, dimensions, strict=False):
        for status, colour in COLOURS.items():
            chosen = [t for t in search.trials if t.status == status and d.name in t.options and math.isfinite(t.score)]
            at = [_place(d, t) for t in chosen]
            axes.scatter(at, [t.score for t in chosen], 14, colour, label=status if chosen else None)
        if isinstance(d.domain, Range):
            axes.set_xscale("log" if d.domain.log else "linear")
        else:
            axes.set_xticks(range(len(d.domain.values)), [progress.number(v) for v in d.domain.values], fontsize=7)
            axes.set_xlim(-0.5, len(d.domain.values) - 0.5)
        axes.tick_params(labelsize=7)
        axes.set_title(d.name, fontsize=9)
        _scaled(axes, search)
    for axes in grid[len(dimensions) :]:
        axes.axis("off")
    figure.supylabel(metric, fontsize=9)
    grid[0].legend(fontsize=7)


def draw_importance(search: Search, metric: str, figure: Any) -> None:
    """How much of the loss's variance each option explains alone."""
    axes = figure.subplots()
    shares = dict(sorted(importance(search).items(), key=lambda pair: pair[1]))
    known = not any(map(math.isnan, shares.values()))
    axes.barh(list(shares), list(shares.values()) if known else [0.0] * len(shares), color="#2463a8")
    axes.set(xlabel=f"share of the variance of {metric}", xlim=(0, 1), title="Importance of the options")
    if not known:
        axes.text(0.5, 0.5, "fewer than 8 scores: not known", transform=axes.transAxes, ha="center")


FIGURES: Mapping[str, Callable[[Search, str, Any], None]] = {
    "best_so_far": draw_best,
    "learning_curves": draw_curves,
    "parallel_coordinates": draw_parallel,
    "slices": draw_slices,
    "importance": draw_importance,
}
"""By the name of the file."""


def _place(d: Dimension, trial: TrialRecord) -> float:
    value = trial.options[d.name]
    return float(value) if isinstance(d.domain, Range) else float(d.domain.values.index(value))


def _scaled(axes: Any, search: Search) -> None:
    """Limits that a few very bad scores do not decide; how many are outside is said."""
    scores = np.array([search.loss(t) for t in search.trials if math.isfinite(t.score)])
    if len(scores) < 2:
        return
    low, middle, high = scores.min(), np.median(scores), scores.max()
    worst = min(high, middle + 3 * (middle - low))
    room = 0.08 * (worst - low) + 1e-9
    limits = (low - room, worst + room)
    axes.set_ylim(*((-limits[1], -limits[0]) if search.maximize else limits))
    hidden = int(np.sum(scores > limits[1]))
    if hidden:
        place, where = ("below", 0.02) if search.maximize else ("above", 0.94)
        axes.text(0.02, where, f"{hidden} scores {place}", transform=axes.transAxes, fontsize=7, color="#555555")


# Files ---------------------------------------------------------------------------------------------------


def write(search: Search, metric: str, folder: Path) -> dict[str, Path]:
    """All files of the report.

    Returns:
        Name -> path: the figures as "slices.png" and "slices.svg", "trials.csv", "trials.json", "report.html".
    """
    import matplotlib.figure

    if not search.trials:
        raise ConfigError("report: there are no trials yet")
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Callable[[Path], Any]] = {}
    for name, draw in FIGURES.items():
        rows = -(-len(search.space.searched) // 3)
        figure = matplotlib.figure.Figure((8, 2.2 * rows + 1 if name == "slices" else 4.5), layout="constrained")
        draw(search, metric, figure)
        for kind in ("png", "svg"):
            write_whole(folder / f"{name}.{kind}", partial(figure.savefig, dpi=120))
    files["trials.csv"] = lambda path: _write_csv(search, path)
    records = [t.to_json() for t in search.trials]
    files["trials.json"] = lambda path: path.write_text(json.dumps(records, indent=1), encoding="utf-8")
    svgs = {name: (folder / f"{name}.svg").read_text(encoding="utf-8") for name in FIGURES}
    files["report.html"] = lambda path: path.write_text(_page(search, metric, svgs), encoding="utf-8")
    for name, content in files.items():
        write_whole(folder / name, content)
    drawn = [f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")]
    return {name: folder / name for name in [*drawn, *files]}


def _write_csv(search: Search, path: Path) -> None:
    names = [d.name for d in search.space.dimensions]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "score", "best_step", "steps", "seconds", *names])
        for t in search.trials:
            score, seconds = ("" if math.isnan(x) else x for x in (t.score, t.seconds))
            row = [t.number, t.status, score, t.best_step, t.steps, seconds]
            writer.writerow(row + [t.options.get(name, "") for name in names])


def _page(search: Search, metric: str, figures: Mapping[str, str]) -> str:
    """One file that needs no other."""
    best = search.best()
    counts = {s: sum(t.status == s for t in search.trials) for s in ("completed", "pruned", "diverged", "failed")}
    summary = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    head = f"best {metric} {progress.number(best.score)}, trial {best.number}" if best else "no result"
    options = {} if best is None else best.options
    rows = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(progress.number(v))}" for k, v in options.items())
    drawings = "\n".join(svg[svg.index("<svg") :] for svg in figures.values())
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Search for optimizer options</title>
<style>body{{font:15px sans-serif;max-width:60em;margin:2em auto}}svg{{max-width:100%;height:auto}}
pre{{overflow-x:auto;font-size:12px}}td{{padding:0 1em 0 0}}</style>
<h1>Search for optimizer options</h1><p>{len(search.trials)} trials ({summary}); {html.escape(head)}</p>
<table>{rows}</table>
{drawings}
<h2>All trials</h2><pre>{html.escape(progress.table(search, metric))}</pre></html>
"""


def write_tensorboard(search: Search, metric: str, folder: Path) -> None:
    """A run for each trial with its options, score and curve, for TensorBoard's HParams page.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import summary as hparams
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ConfigError("write_tensorboard needs the package tensorboard: pip install tensorboard") from error
    for trial in search.trials:
        run = folder / f"trial_{trial.number:04d}"
        if any(run.glob("events*")):
            continue
        writer = EventFileWriter(str(run))
        options = {k: v if isinstance(v, (bool, int, float, str)) else repr(v) for k, v in trial.options.items()}
        end = "STATUS_SUCCESS" if trial.status in ("completed", "pruned") else "STATUS_FAILURE"
        for made in (hparams.session_start_pb(options), hparams.session_end_pb(_status(end))):
            # beside TensorFlow they are of its own class, which an event of tensorboard does not take
            writer.add_event(Event(summary=Summary.FromString(made.SerializeToString())))
        for name, values in trial.curve.items():
            for step, value in zip(trial.curve["step"], values, strict=False):
                if name != "step":
                    writer.add_event(
                        Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))
                    )
        writer.close()


def _status(name: str) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    return getattr(api_pb2, name)

"""The figures of a search: functions that draw it into an empty figure of matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from capibara_keras.tuning import progress
from capibara_keras.tuning.domains import Choice, Dimension, Range
from capibara_keras.tuning.importance import best_so_far, importance
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["FIGURES"]

COLOURS = {"completed": "#2463a8", "pruned": "#e0a030", "diverged": "#c03030", "failed": "#777777"}

FIT = 24
"""Letters of the names of values that fit below a slice side by side."""


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
    axes.set(xlabel="trial", ylabel=metric, title="Best so far", xlim=(-0.5, max(len(search.trials), 2) - 0.5))
    _scaled(axes, search)
    _legend(axes, 8)


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
    _legend(axes, 8)


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
            axes.set_xlim(*_with_room(d.domain))
        else:
            names = [progress.number(v) for v in d.domain.values]
            turned = {"rotation": 15, "ha": "right"} if sum(map(len, names)) > FIT else {}
            axes.set_xticks(range(len(names)), names, fontsize=7, **turned)
            axes.set_xlim(-0.5, len(d.domain.values) - 0.5)
        axes.tick_params(labelsize=7)
        axes.set_title(d.name, fontsize=9)
        _scaled(axes, search)
    for axes in grid[len(dimensions) :]:
        axes.axis("off")
    figure.supylabel(metric, fontsize=9)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=7)


def draw_importance(search: Search, metric: str, figure: Any) -> None:
    """How much of the loss's variance each option explains alone."""
    axes = figure.subplots()
    shares = dict(sorted(importance(search).items(), key=lambda pair: pair[1]))
    known = not any(map(math.isnan, shares.values()))
    lengths = list(shares.values()) if known else [0.0] * len(shares)
    axes.barh(list(shares), lengths, height=min(0.8, 0.2 * len(shares)), color="#2463a8")
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


def _with_room(domain: Range) -> tuple[float, float]:
    """Its bounds with a little room at both sides, whatever was tried."""
    if domain.log:
        factor = (domain.high / domain.low) ** 0.03
        return domain.low / factor, domain.high * factor
    room = 0.03 * (domain.high - domain.low)
    return domain.low - room, domain.high + room


def _place(d: Dimension, trial: TrialRecord) -> float:
    value = trial.options[d.name]
    return float(value) if isinstance(d.domain, Range) else float(d.domain.values.index(value))


def _legend(axes: Any, size: int) -> None:
    """A legend, if anything was drawn: matplotlib warns of an empty one."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=size)


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
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
        text = f"{hidden} scores {place}"
        axes.text(0.02, where, text, transform=axes.transAxes, fontsize=7, color="#555555", bbox=paper)

"""Figures of a training: for each type first the numbers, then the drawing.

Marks differ in shape as well as in colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.files import writable_directory, write_whole
from capibara_keras.monitoring.marks import finish, line, marks, rug
from capibara_keras.monitoring.palette import BLUE, GREEN, PURPLE, RED
from capibara_keras.monitoring.reader import TrainingHistory, read
from capibara_keras.monitoring.scales import count, scale

__all__ = ["PLOTS", "generate"]

Numbers = dict[str, np.ndarray]

USUAL = (1e-4, 1e-2)
"""Where the change of the parameters as a share of their norm usually lies in one update."""


def rate_numbers(h: TrainingHistory) -> Numbers:
    """Position and learning rate."""
    return {"x": h.step, "rate": h.learning_rate}


def gradient_numbers(h: TrainingHistory) -> Numbers:
    """Position, norm before clipping, the limit, and where it was clipped or is not finite."""
    g = h.gradient_norm
    return {
        "x": h.step,
        "norm": g,
        "limit": h.clip_threshold,
        "clipped": (h.clipped == 1) & np.isfinite(g),
        "nonfinite": np.isinf(g) | (h.skipped == 1),
        "zero": g == 0,
    }


def update_numbers(h: TrainingHistory) -> Numbers:
    """Position, norms of the parameters and of their change, the ratio, and where the gradient was clipped."""
    w, d = h.parameter_norm, h.update_norm
    known = np.isfinite(w) & np.isfinite(d) & (w > 0)
    ratio = np.divide(d, w, out=np.full(len(w), np.nan), where=known)
    return {"x": h.step, "parameters": w, "change": d, "ratio": ratio, "clipped": (h.clipped == 1) & (ratio > 0)}


def path_numbers(h: TrainingHistory) -> Numbers:
    """Loss, and the length of the path Σ ‖Δθ‖ up to where it was computed, that is before the update.

    Changes between two measurements are interpolated; an update that was skipped moved nothing.
    """
    d = np.where(h.skipped == 1, 0.0, h.update_norm)
    index, known = np.arange(len(d)), np.isfinite(d)
    change = np.interp(index, index[known], d[known]) if known.any() else np.zeros(len(d))
    length = np.concatenate([[0.0], np.cumsum(change)[:-1]])
    return {"x": length, "loss": h.loss, "nonfinite": np.isinf(h.loss) | (h.skipped == 1)}


def draw_rate(figure: Any, n: Numbers, h: TrainingHistory) -> None:
    """One line, on an axis from 0 on."""
    axes = figure.subplots()
    line(axes, n["x"], n["rate"], BLUE, "learning rate")
    if np.isfinite(n["rate"]).any() and np.nanmax(n["rate"]) > 0:
        axes.set_ylim(0, 1.05 * np.nanmax(n["rate"]))
    count(axes.xaxis)
    axes.set(title="Learning rate", ylabel="learning rate", xlabel=_counted(h))


def draw_gradient(figure: Any, n: Numbers, h: TrainingHistory) -> None:
    """Norm and limit; what the axis cannot show is a mark at its edge."""
    axes = figure.subplots()
    count(axes.xaxis)
    scale(axes, n["norm"], n["limit"])
    line(axes, n["x"], n["norm"], BLUE, "before clipping")
    if np.isfinite(n["limit"]).any():
        line(axes, n["x"], n["limit"], GREEN, "limit of clipping", linestyle="--")
    marks(axes, n["x"], n["norm"], n["clipped"], "clipped")
    rug(axes, n["x"], n["nonfinite"], 0.97, RED, "x", "not finite or skipped")
    rug(axes, n["x"], n["zero"], 0.03, PURPLE, "v", "zero")
    axes.set(title="Norm of the gradient", ylabel="L2 norm (units of loss / units of weight)", xlabel=_counted(h))


def draw_updates(figure: Any, n: Numbers, h: TrainingHistory) -> None:
    """The ratio with its usual band, and below it the two norms."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    count(lower.xaxis)
    scale(upper, n["ratio"], np.array(USUAL))
    upper.axhspan(*USUAL, color=GREEN, alpha=0.12, linewidth=0, label="usual: 1e-4 to 1e-2")
    line(upper, n["x"], n["ratio"], BLUE, "change / norm")
    marks(upper, n["x"], n["ratio"], n["clipped"], "clipped")
    scale(lower, n["parameters"], n["change"])
    line(lower, n["x"], n["parameters"], PURPLE, "parameters", linestyle="--")
    line(lower, n["x"], n["change"], GREEN, "their change")
    upper.set(title="How far an update moves the parameters", ylabel="change / norm (share)")
    lower.set(ylabel="L2 norm (units of weight)", xlabel=_counted(h))


def draw_path(figure: Any, n: Numbers, h: TrainingHistory) -> None:
    """The loss where training went, and nowhere else."""
    axes = figure.subplots()
    line(axes, n["x"], n["loss"], BLUE, "loss")
    rug(axes, n["x"], n["nonfinite"], 0.97, RED, "x", "not finite or skipped")
    axes.set(title="Loss along the path of training (not a landscape: nothing beside the path was evaluated)")
    axes.set(ylabel="loss", xlabel="length of the path, sum of ‖change‖ (units of weight)")


@dataclass(frozen=True)
class Plot:
    """A type of plot: the series it needs, its numbers, its drawing."""

    needs: tuple[str, ...]
    numbers: Callable[[TrainingHistory], Numbers]
    draw: Callable[[Any, Numbers, TrainingHistory], None]


PLOTS = {
    "learning_rate_schedule": Plot(("learning_rate",), rate_numbers, draw_rate),
    "gradient_norm_evolution": Plot(("gradient_norm",), gradient_numbers, draw_gradient),
    "parameter_updates": Plot(("parameter_norm", "update_norm"), update_numbers, draw_updates),
    "loss_landscape_approximation": Plot(("loss", "update_norm"), path_numbers, draw_path),
}
"""All types."""

LANDSCAPE = "loss_landscape_approximation"

SOURCES = {
    "learning_rate": "`LogStatistics` or `HealthMonitor` record it",
    "gradient_norm": "`LogStatistics` or `HealthMonitor` record it",
    "parameter_norm": "`HealthMonitor` or `statistics_every` measure it",
    "update_norm": "`HealthMonitor` or `statistics_every` measure it",
    "loss": "`fit` or `optimizer.observe` tell it",
}


def generate(
    metrics_history: Any,
    plot_types: Sequence[str] | None = None,
    save_plots: bool = False,
    plot_directory: str | Path = "training_plots",
    landscape: Any = None,
) -> dict[str, Any]:
    """Figures of a training. Arguments, result and errors are those of `Optimizer.generate_training_plots`.

    >>> list(generate({"learning_rate": [0.1, 0.2]}))
    ['learning_rate_schedule']
    """
    from matplotlib.figure import Figure

    save = errors.boolean("save_plots", save_plots)
    history = read(metrics_history)
    figures: dict[str, Any] = {}
    for name in _chosen(plot_types, history, [] if landscape is None else [LANDSCAPE]):
        if name == LANDSCAPE and landscape is not None:
            figures[name] = Figure(figsize=(8, 6), layout="constrained")
            landscape.draw(figures[name])
            continue
        plot = PLOTS[name]
        figures[name] = Figure(figsize=(8, 6.5 if name == "parameter_updates" else 4.5), layout="constrained")
        numbers = plot.numbers(history)
        plot.draw(figures[name], numbers, history)
        finish(figures[name], numbers["x"], history)
    if not save:
        return figures
    directory = writable_directory("plot_directory", plot_directory)
    return {name: _save(figure, directory / name) for name, figure in figures.items()}


def _chosen(plot_types: Sequence[str] | None, history: TrainingHistory, given: Sequence[str]) -> list[str]:
    """The types to draw. Those that are `given` need nothing of the history."""
    needs = {name: () if name in given else plot.needs for name, plot in PLOTS.items()}
    missing = {name: [s for s in series if not history.knows(s)] for name, series in needs.items()}
    if plot_types is None:
        possible = [name for name in PLOTS if not missing[name]]
        if not possible:
            raise errors.ConfigError(f"metrics_history: it has what no plot needs; {_lacks(missing)}")
        return possible
    if isinstance(plot_types, str) or not isinstance(plot_types, Sequence):
        raise errors.ConfigError(f"plot_types: expected a list of names, received {plot_types!r}")
    for name in plot_types:
        if name not in PLOTS:
            raise errors.unknown("plot type", name, PLOTS)
    if lacking := {name: missing[name] for name in plot_types if missing[name]}:
        raise errors.ConfigError(f"metrics_history: {_lacks(lacking)}")
    return list(dict.fromkeys(plot_types))


def _lacks(missing: dict[str, list[str]]) -> str:
    plots = "; ".join(f"{name} needs {' and '.join(series)}" for name, series in missing.items())
    sources = "; ".join(f"{s}: {SOURCES[s]}" for s in sorted({s for series in missing.values() for s in series}))
    return f"numbers are missing: {plots} ({sources})"


def _counted(h: TrainingHistory) -> str:
    return f"{h.unit} (index)"


# Files ---------------------------------------------------------------------------------------------------


def _save(figure: Any, path: Path) -> Path:
    """As PNG, whose path is returned, and as SVG; no reader sees half a file."""
    for kind in ("svg", "png"):
        write_whole(path.with_name(f"{path.name}.{kind}"), partial(figure.savefig, dpi=150), "plot_directory")
    return path.with_name(f"{path.name}.png")

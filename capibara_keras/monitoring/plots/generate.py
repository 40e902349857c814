"""Which plots a history has the numbers for, and their figures or files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from capibara_keras import errors
from capibara_keras.files import writable_directory, write_whole
from capibara_keras.monitoring import figures
from capibara_keras.monitoring.plots.strokes import annotate
from capibara_keras.monitoring.plots.types import LANDSCAPE, PLOTS
from capibara_keras.monitoring.reader import TrainingHistory, read

__all__ = ["generate"]

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
    save = errors.boolean("save_plots", save_plots)
    history = read(metrics_history)
    drawn: dict[str, Any] = {}
    for name in _chosen(plot_types, history, [] if landscape is None else [LANDSCAPE]):
        if name == LANDSCAPE and landscape is not None:
            drawn[name] = figures.new(height=6.0)
            landscape.draw(drawn[name])
            continue
        plot = PLOTS[name]
        numbers, drawn[name] = plot.numbers(history), figures.new(height=plot.height)
        plot.draw(drawn[name], numbers, history)
        annotate(drawn[name], numbers["x"], history)
    if not save:
        return drawn
    directory = writable_directory("plot_directory", plot_directory)
    return {name: _save(figure, directory / name) for name, figure in drawn.items()}


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


def _save(figure: Any, path: Path) -> Path:
    """As PNG, whose path is returned, and as SVG; no reader sees half a file."""
    for kind in ("svg", "png"):
        write_whole(path.with_name(f"{path.name}.{kind}"), partial(figure.savefig, dpi=150), "plot_directory")
    return path.with_name(f"{path.name}.png")

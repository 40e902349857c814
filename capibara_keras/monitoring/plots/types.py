"""The types of plots: the series that each needs, its numbers, its drawing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import BLUE, GREEN, PURPLE, RED
from capibara_keras.monitoring.plots.strokes import line, marks, rug
from capibara_keras.monitoring.reader import TrainingHistory
from capibara_keras.monitoring.scales import count, from_zero, scale

__all__ = ["PLOTS", "USUAL", "Plot"]

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
    from_zero(axes, n["rate"])
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
    rug(upper, n["x"], n["ratio"] == 0, 0.03, PURPLE, "v", "no change")
    scale(lower, n["parameters"], n["change"])
    line(lower, n["x"], n["parameters"], PURPLE, "parameters", linestyle="--")
    line(lower, n["x"], n["change"], GREEN, "their change")
    upper.set(title="How far an update moves the parameters", ylabel="change / norm (share)")
    lower.set(ylabel="L2 norm (units of weight)", xlabel=_counted(h))


def draw_path(figure: Any, n: Numbers, h: TrainingHistory) -> None:
    """The loss where training went, and nowhere else."""
    axes = figure.subplots()
    line(axes, n["x"], n["loss"], BLUE, "loss")
    scale(axes, n["loss"])
    rug(axes, n["x"], n["nonfinite"], 0.97, RED, "x", "not finite or skipped")
    axes.set(title="Loss along the path of training (not a landscape: nothing beside the path was evaluated)")
    axes.set(ylabel="loss", xlabel="length of the path, sum of ‖change‖ (units of weight)")


def _counted(h: TrainingHistory) -> str:
    return f"{h.unit} (index)"


@dataclass(frozen=True)
class Plot:
    """A type of plot: the series it needs, its numbers, its drawing, and its height in inches."""

    needs: tuple[str, ...]
    numbers: Callable[[TrainingHistory], Numbers]
    draw: Callable[[Any, Numbers, TrainingHistory], None]
    height: float = 4.5


PLOTS = {
    "learning_rate_schedule": Plot(("learning_rate",), rate_numbers, draw_rate),
    "gradient_norm_evolution": Plot(("gradient_norm",), gradient_numbers, draw_gradient),
    "parameter_updates": Plot(("parameter_norm", "update_norm"), update_numbers, draw_updates, height=6.5),
    "loss_landscape_approximation": Plot(("loss", "update_norm"), path_numbers, draw_path),
}
"""All types."""

LANDSCAPE = "loss_landscape_approximation"

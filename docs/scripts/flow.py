"""Draws docs/figures/flow.png: what happens to a gradient. `python docs/scripts/flow.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

FIGURE = Path(__file__).parents[1] / "figures" / "flow.png"

STAGES = [
    ("accumulate", "add to the window; unless it is full, this is all", "gradient_accumulation_steps"),
    ("sum", "over replicas: once per update", ""),
    ("divide", "by the micro-batches or their weights, by the loss scale", "normalize_gradients, loss_scale_factor"),
    ("measure", "the gradient's norm; if not finite, nothing changes", "nonfinite, skip_spikes"),
    ("clip", "by value, norm, global norm, percentile or unit", "global_clipnorm, clip_method"),
    ("rule", "the algorithm with weight decay, at the schedule's rate", "algorithm, learning_rate, groups"),
    ("constrain", "Keras' constraint of the variable", ""),
    ("average", "of the weights", "use_ema"),
]
"""Name, what it does, the options that choose it; from top to bottom."""

PER_REPLICA, SHARED = "#dbe9f6", "#e5f2e0"


def box(axes: Axes, y: float, name: str, what: str, options: str, colour: str) -> None:
    """One stage."""
    axes.add_patch(FancyBboxPatch((0, y), 7.6, 0.62, boxstyle="round,pad=0.04", facecolor=colour, edgecolor="#555555"))
    axes.text(0.15, y + 0.31, name, weight="bold", va="center", size=11)
    axes.text(1.95, y + 0.31, what, va="center", size=9)
    axes.text(7.85, y + 0.31, options, va="center", size=8.5, family="monospace", color="#444444")


def draw() -> pyplot.Figure:
    """The stages with arrows between them, and what goes in and out."""
    figure, axes = pyplot.subplots(figsize=(11, 6.4))
    top = len(STAGES) * 0.95
    axes.text(3.8, top + 0.05, "gradients of one micro-batch, on each replica", ha="center", size=10)
    for i, stage in enumerate(STAGES):
        y = top - 0.95 * (i + 1)
        axes.annotate("", (3.8, y + 0.66), (3.8, y + 0.93), arrowprops={"arrowstyle": "->", "color": "#555555"})
        box(axes, y, *stage, colour=PER_REPLICA if i == 0 else SHARED)
    axes.annotate("", (3.8, -0.33), (3.8, -0.04), arrowprops={"arrowstyle": "->", "color": "#555555"})
    axes.text(3.8, -0.5, "weights, state, statistics: written at once", ha="center", size=10)
    axes.text(7.85, top + 0.05, "options", size=9, style="italic", color="#444444")
    axes.text(-0.25, top - 0.64, "each\nmicro-batch", ha="right", va="center", size=8.5, color="#3b6ea5")
    axes.text(-0.25, top / 2 - 0.6, "each\nupdate", ha="right", va="center", size=8.5, color="#4a7d3a")
    axes.set(xlim=(-1.2, 11.9), ylim=(-0.7, top + 0.3))
    axes.axis("off")
    return figure


if __name__ == "__main__":
    draw().savefig(FIGURE, dpi=130, bbox_inches="tight")

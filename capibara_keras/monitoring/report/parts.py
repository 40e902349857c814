"""Parts that panels are made of: labels, legends, scales, marks."""

from __future__ import annotations

from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import BLUE, GREEN, LEVEL_COLOURS, ORANGE, PURPLE, RED, SKY
from capibara_keras.monitoring.report.names import short_names
from capibara_keras.monitoring.report.story import Story

__all__ = ["UPDATE", "alert_lines", "by_layer", "labels", "line", "rug", "unknown"]

UPDATE = "update"
"""Label of the axis that panels over updates share."""

COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
"""Of layers that a panel names; where there are more, it shows the range."""

DATED = 4
"""Kinds of alerts that have a line of their own."""

AXES_WIDTH, BELOW = 310.0, 30.0
"""In points: how wide the axes of the page are, and how far below them a legend begins, behind ticks and label."""


def labels(axes: Any, title: str, ylabel: str, *, xlabel: str = UPDATE, grid: bool = True) -> None:
    """Title, labels, and a legend below the axes, where it hides nothing."""
    axes.set_title(title, loc="left")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if grid:
        axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        _legend(axes)


def _legend(axes: Any) -> None:
    """As many columns as fit below the axes: a wider one would have the layout narrow them."""
    from matplotlib.transforms import ScaledTranslation

    size = 7.5
    longest = max(map(len, axes.get_legend_handles_labels()[1]))
    columns = int(AXES_WIDTH / (3.5 * size + 0.56 * size * longest))  # handle and gaps, and letters of mean width
    below = axes.transAxes + ScaledTranslation(0, -BELOW / 72, axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=below,
        borderaxespad=0.0,
        fontsize=size,
        ncols=min(max(columns, 1), 4),
        frameon=False,
        columnspacing=1.0,
        handlelength=1.6,
    )


def unknown(axes: Any, title: str, why: str) -> None:
    """A panel without numbers, which says so."""
    axes.set_title(title, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, f"not known\n({why})", ha="center", va="center", color="#777777", transform=axes.transAxes)


def line(axes: Any, x: np.ndarray, y: np.ndarray, colour: str, label: str, **style: Any) -> None:
    """What is known, joined over what is not; a single place, where all updates are that were skipped, is a dot."""
    keep = np.isfinite(y)
    dot = {"marker": "o", "markersize": 4, "clip_on": False} if len(np.unique(x[keep])) == 1 else {}
    axes.plot(x[keep], y[keep], color=colour, label=label, **dot, **style)


def rug(axes: Any, x: np.ndarray, where: np.ndarray, label: str) -> None:
    """Marks at the upper edge, for what has no place on the axis."""
    if where.any():
        place, transform = np.full(int(where.sum()), 0.97), axes.get_xaxis_transform()
        axes.plot(x[where], place, "x", color=RED, markersize=5, transform=transform, label=label)


def alert_lines(axes: Any, story: Story) -> None:
    """The first place of each kind of alert."""
    seen: set[str] = set()
    for alert in story.alerts:
        if alert.level != "info" and alert.id not in seen and len(seen) < DATED:
            seen.add(alert.id)
            colour = LEVEL_COLOURS.get(alert.level, RED)
            axes.axvline(alert.step, color=colour, linestyle=":", linewidth=1.3, label=alert.id)


def by_layer(axes: Any, story: Story, table: np.ndarray) -> None:
    """A line for each of a few layers; of many, the range, the median, and the ends.

    Args:
        table: a row per layer, or one row for all together.
    """
    x = story.series("update")
    some = [k for k in range(len(table)) if np.isfinite(table[k]).any()]
    names = short_names(story.layers) if len(table) == len(story.layers) else ["all"] * len(table)
    if len(some) <= len(COLOURS):
        for k, colour in zip(some, COLOURS, strict=False):
            line(axes, x, table[k], colour, names[k], linewidth=1.2)
        return
    columns = np.isfinite(table).any(axis=0)
    known = table[:, columns]
    low, middle, high = np.nanpercentile(np.where(np.isfinite(known), known, np.nan), (0, 50, 100), axis=0)
    axes.fill_between(x[columns], low, high, color=BLUE, alpha=0.2, linewidth=0, label=f"{len(some)} layers, range")
    line(axes, x[columns], middle, BLUE, "median", linewidth=1.4)
    for k, colour in ((some[0], GREEN), (some[-1], RED)):
        line(axes, x, table[k], colour, names[k], linewidth=1.0)

"""Lines and marks that say what is not known or not finite, too. Marks differ in shape as well as in colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import LEVEL_COLOURS, ORANGE, RED
from capibara_keras.monitoring.reader import TrainingHistory

__all__ = ["annotate", "line", "marks", "rug"]

LISTED = 5
"""Kinds of alerts that the legend names."""


def line(axes: Any, x: np.ndarray, y: np.ndarray, colour: str, label: str, linestyle: str = "-") -> None:
    """What is known, joined over what was not measured; broken where a value is not finite, and where training went
    back to an earlier update. What no line reaches is a dot."""
    keep = ~np.isnan(y)
    x, y = x[keep], np.where(np.isfinite(y[keep]), y[keep], np.nan)
    back = np.flatnonzero(np.diff(x) < 0) + 1
    x, y = np.insert(x, back, np.nan), np.insert(y, back, np.nan)
    joined = np.isfinite(y[1:]) & np.isfinite(y[:-1]) & (x[1:] != x[:-1])
    alone = np.isfinite(y) & ~np.append(joined, False) & ~np.insert(joined, 0, False)
    axes.plot(x, y, linestyle, color=colour, linewidth=1.3, label=label)
    if alone.any():
        axes.plot(x[alone], y[alone], ".", color=colour)


def marks(axes: Any, x: np.ndarray, y: np.ndarray, where: np.ndarray, label: str) -> None:
    """Circles around some of the points."""
    if where.any():
        axes.plot(x[where], y[where], "o", color=ORANGE, markersize=3.5, markerfacecolor="none", label=label)


def rug(axes: Any, x: np.ndarray, where: np.ndarray, height: float, colour: str, marker: str, label: str) -> None:
    """Marks at a height of the axes, for values that have no place on them."""
    if where.any():
        transform = axes.get_xaxis_transform()
        y = np.full(int(where.sum()), height)
        axes.plot(x[where], y, marker, color=colour, markersize=5, linestyle="", transform=transform, label=label)


def annotate(figure: Any, x: np.ndarray, h: TrainingHistory) -> None:
    """Alerts as upright lines, the worst named first, a grid, and one legend below everything."""
    levels = list(LEVEL_COLOURS)
    alerts = sorted(h.alerts, key=lambda alert: -levels.index(alert.level) if alert.level in levels else -len(levels))
    kinds = list(dict.fromkeys((alert.level, alert.id) for alert in alerts))
    styles = [":", "-.", "--", (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2))]
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for alert in alerts:
            k = kinds.index((alert.level, alert.id))
            place = x[np.argmin(np.abs(h.step - alert.step))]
            if k < LISTED:
                label, colour, style = f"{alert.level}: {alert.id}", LEVEL_COLOURS.get(alert.level, RED), styles[k]
            else:
                label, colour, style = f"other alerts ({len(kinds) - LISTED} kinds)", "#BBBBBB", "-"
            axes.axvline(place, color=colour, linewidth=1.2, linestyle=style, zorder=1, label=label)
        axes.grid(alpha=0.25)
        axes.title.set_fontsize(11)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8, frameon=False)

"""Drawing the loss around a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import BLUE, ORANGE, RED

__all__ = ["NO_PATH", "draw_line", "draw_plane"]

NO_PATH = np.zeros((0, 2))
"""The path of a plane that has none."""

DISTANCE = "distance from the weights (in lengths of their filters)"
LEVELS = 24
FLAT = 1e-9
"""A loss that varies by a smaller share of its size is drawn as constant."""


def draw_line(figure: Any, distances: np.ndarray, losses: np.ndarray, samples: int) -> None:
    """The loss along a line; points where it is not finite are marks at the top."""
    axes = figure.subplots()
    finite = np.isfinite(losses)
    axes.plot(distances, np.where(finite, losses, np.nan), "-", color=BLUE, linewidth=1.4, label="loss")
    here = len(losses) // 2
    axes.plot(distances[here], losses[here], "o", color=ORANGE, label=f"the model: {losses[here]:.4g}")
    if not finite.all():
        height = np.full(int((~finite).sum()), 0.97)
        transform = axes.get_xaxis_transform()
        axes.plot(distances[~finite], height, "x", color=RED, transform=transform, label="not finite")
    if _spread(losses) > 1e3:
        axes.set_yscale("log")
    elif _flat(losses):
        middle = float(losses[finite][0])
        axes.set_ylim(middle - 0.5 * max(abs(middle), 1.0), middle + 0.5 * max(abs(middle), 1.0))
    axes.set_title("Loss along a random line through the weights", fontsize=11)
    axes.set(xlabel=DISTANCE, ylabel=_loss_label(samples))
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def draw_plane(
    figure: Any,
    x: np.ndarray,
    y: np.ndarray,
    losses: np.ndarray,
    samples: int,
    path: np.ndarray = NO_PATH,
    updates: Sequence[int] = (),
    caution: str = "",
) -> None:
    """The loss as colours with lines of equal loss, and the path of training over them. Grey: not finite."""
    from matplotlib.colors import LogNorm, Normalize

    axes = figure.subplots()
    finite = np.isfinite(losses)
    logarithmic = _spread(losses) > 30
    shown = np.ma.masked_array(losses, ~finite)
    low, high = (float(losses[finite].min()), float(losses[finite].max())) if finite.any() else (0.0, 1.0)
    if not logarithmic and _flat(losses):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    scale = LogNorm(low, high) if logarithmic else Normalize(low, high)
    axes.set_facecolor("#BBBBBB")
    image = axes.pcolormesh(x, y, shown, norm=scale, cmap="viridis", shading="nearest", rasterized=True)
    if finite.any() and not _flat(losses):
        levels = (np.geomspace if logarithmic else np.linspace)(low, high, LEVELS)
        axes.contour(x, y, shown, levels=levels[1:-1], colors="white", linewidths=0.5, alpha=0.7)
    figure.colorbar(image, ax=axes, label=_loss_label(samples) + (", logarithmic" if logarithmic else ""))
    axes.set(xlim=_edges(x), ylim=_edges(y))
    if len(path):
        _draw_path(axes, path, updates)
        axes.set_title(f"Loss around the path of training\n({caution})", fontsize=10)
        axes.set(xlabel="first principal direction (units of weight)")
        axes.set(ylabel="second principal direction (units of weight)")
    else:
        axes.plot(0, 0, "o", color=ORANGE, markeredgecolor="white", label="the model")
        axes.set_title("Loss on a random plane through the weights", fontsize=11)
        axes.set(xlabel=f"first direction: {DISTANCE}", ylabel="second direction")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _draw_path(axes: Any, path: np.ndarray, updates: Sequence[int]) -> None:
    """Line, checkpoints, start and end; with their updates where they are known."""
    axes.plot(*path.T, "-", color="white", linewidth=2.6, zorder=3)
    axes.plot(*path.T, "-", color=RED, linewidth=1.3, marker=".", markersize=5, zorder=4, label="checkpoints")
    names = [f" (update {updates[i]})" if len(updates) == len(path) else "" for i in (0, -1)]
    style = {"markeredgecolor": "white", "linestyle": "", "zorder": 5}
    axes.plot(*path[0], "s", color=BLUE, label=f"start{names[0]}", **style)
    axes.plot(*path[-1], "o", color=ORANGE, label=f"end{names[1]}", **style)


def _edges(x: np.ndarray) -> tuple[float, float]:
    """Of the cells around the points."""
    half = (x[1] - x[0]) / 2
    return float(x[0] - half), float(x[-1] + half)


def _spread(losses: np.ndarray) -> float:
    """How many times the smallest loss the largest one is; 0 if that is no question."""
    finite = losses[np.isfinite(losses)]
    return float(finite.max() / finite.min()) if len(finite) and finite.min() > 0 else 0.0


def _flat(losses: np.ndarray) -> bool:
    finite = losses[np.isfinite(losses)]
    return not len(finite) or bool(np.ptp(finite) <= FLAT * np.abs(finite).max())


def _loss_label(samples: int) -> str:
    return f"loss (mean of {samples} samples)"

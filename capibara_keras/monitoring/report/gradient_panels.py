"""The middle row of the page: the gradient's norm, its size by layer, and how it is spread then and now."""

from __future__ import annotations

from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import BLUE, GREEN, ORANGE
from capibara_keras.monitoring.report.names import short_names
from capibara_keras.monitoring.report.parts import alert_lines, labels, line, rug, unknown
from capibara_keras.monitoring.report.smoothing import band
from capibara_keras.monitoring.report.story import Story
from capibara_keras.monitoring.scales import scale, spans

__all__ = ["gradient_panel", "histogram_panel", "layers_panel"]

NAMED = 14
"""Layers that are named beside the map."""

DEEPEST = 8.0
"""Decades below the largest that colours tell apart; a gradient that is nearly 0 would take them all."""

FEWEST, BINS = 10, 30


def gradient_panel(axes: Any, story: Story) -> None:
    """Norm of the gradient with its range, the limit, and where it was clipped."""
    x, norm = story.series("update"), story.series("gradient_norm")
    known = np.isfinite(norm) & (norm > 0)
    if not known.any():
        return unknown(axes, "Norm of the gradient", "no finite one was recorded")
    if known.sum() >= 2 * FEWEST:
        low, high = band(norm[known])
        axes.fill_between(x[known], low, high, color=BLUE, alpha=0.2, linewidth=0, label="10 to 90 % nearby")
    line(axes, x[known], norm[known], BLUE, "before clipping", linewidth=0.9)
    limit = story.series("clip_threshold")
    if np.isfinite(limit).any():
        line(axes, x, limit, GREEN, "limit", linestyle="--")
    clipped = known & (story.series("clipped") > 0.5)
    if clipped.any():
        dots = {"markersize": 2.5, "alpha": 0.7, "zorder": 3, "markeredgewidth": 0}
        axes.plot(x[clipped], norm[clipped], "o", color=ORANGE, label="clipped", **dots)
    rug(axes, x, np.isinf(story.series("gradient_high")) | (story.series("skipped") > 0), "not finite, skipped")
    scale(axes, norm[known], limit)
    alert_lines(axes, story)
    labels(axes, "Norm of the gradient", "L2 norm (loss / weight)")


def layers_panel(axes: Any, story: Story) -> None:
    """Size of the gradient's entries by layer and time."""
    table = story.by_layer("gradient")
    if not (np.isfinite(table) & (table > 0)).any():
        return unknown(axes, "Gradient by layer", "HealthMonitor or TrainingReport measure it")
    x = story.series("update")
    image = np.log10(table, out=np.full(table.shape, np.nan), where=np.isfinite(table) & (table > 0))
    n, top = len(story.layers), float(np.nanmax(image))
    extent = (x[0], max(x[-1], x[0] + 1), n - 0.5, -0.5)
    low = max(float(np.nanmin(image)), top - DEEPEST)
    shown = axes.imshow(image, aspect="auto", extent=extent, vmin=low, vmax=top, interpolation="nearest")
    step = max(1, -(-n // NAMED))
    axes.set_yticks(range(0, n, step), short_names(story.layers)[::step])
    axes.figure.colorbar(shown, ax=axes, label=f"log10 of {story.gradient_unit}", pad=0.01)
    blank = "; white: 0 or unknown" if np.isnan(image).any() else ""
    labels(axes, f"Gradient by layer (input at the top{blank})", "", grid=False)


def histogram_panel(axes: Any, story: Story) -> None:
    """Gradient norms at the start and now."""
    from matplotlib.ticker import LogLocator

    early, late = (np.array([x for x in norms if x > 0]) for norms in story.then_and_now())
    if len(early) < FEWEST or len(late) < FEWEST:
        return unknown(axes, "Gradient norms, then and now", f"fewer than {2 * FEWEST} finite norms")
    both = np.concatenate([early, late])
    low, high = float(both.min()), float(max(both.max(), 1.01 * both.min()))
    logarithmic = spans(both)
    bins = np.geomspace(low, high, BINS) if logarithmic else np.linspace(low, high, BINS)
    axes.hist(early, bins, color=BLUE, alpha=0.5, label=f"first {len(early)} updates")
    axes.hist(late, bins, color=ORANGE, alpha=0.5, label=f"last {len(late)}", hatch="//", edgecolor="white")
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter("")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high < 1000 * low else (1.0,), numticks=6))
        axes.xaxis.set_major_formatter("{x:g}")
    labels(axes, "Gradient norms, then and now", "updates", xlabel="L2 norm (loss / weight)")

"""The lower row of the page: how far weights move, how large they are, and which units no gradient reaches."""

from __future__ import annotations

from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import GREEN, RED
from capibara_keras.monitoring.plots import USUAL
from capibara_keras.monitoring.report.parts import by_layer, labels, unknown
from capibara_keras.monitoring.report.story import Story
from capibara_keras.monitoring.scales import scale

__all__ = ["norm_panel", "ratio_panel", "silent_panel"]

MEASURED_BY = "HealthMonitor or TrainingReport measure it"


def ratio_panel(axes: Any, story: Story) -> None:
    """Change as a share of the weights' norm, by layer, and the usual band."""
    table = story.by_layer("change")
    if not np.isfinite(table).any():
        norm, change = story.series("parameter_norm"), story.series("update_norm")
        known = np.isfinite(norm) & np.isfinite(change) & (norm > 0)
        table = np.divide(change, norm, out=np.full(len(norm), np.nan), where=known)[None]
        if not known.any():
            return unknown(axes, "Change per update", MEASURED_BY)
    if not (table > 0).any():
        return unknown(axes, "Change per update", "no update changed anything")
    axes.axhspan(*USUAL, color=GREEN, alpha=0.12, linewidth=0, label="usual: 1e-4 to 1e-2")
    by_layer(axes, story, table)
    axes.set_yscale("log", nonpositive="mask")
    labels(axes, "Change per update", "change / norm (share)")


def norm_panel(axes: Any, story: Story) -> None:
    """Norm of the weights by layer."""
    table = story.by_layer("parameter")
    if not np.isfinite(table).any():
        table = story.series("parameter_norm")[None]
        if not np.isfinite(table).any():
            return unknown(axes, "Norm of the weights", MEASURED_BY)
    by_layer(axes, story, table)
    scale(axes, table)
    labels(axes, "Norm of the weights", "L2 norm (weight)")


def silent_panel(axes: Any, story: Story) -> None:
    """Share of units that no gradient reaches."""
    table = story.by_layer("silent")
    if not np.isfinite(table).any():
        return unknown(axes, "Units without a gradient", "TrainingReport measures it, for layers with biases")
    by_layer(axes, story, 100 * table)
    axes.axhline(60, color=RED, linestyle="--", linewidth=1, label="alert above 60 %")
    axes.set_ylim(-3, 103)
    labels(axes, "Units without a gradient", "share of units (%)")

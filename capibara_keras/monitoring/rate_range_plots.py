"""Drawing a learning-rate range test."""

from __future__ import annotations

from typing import Any

import numpy as np

from capibara_keras.monitoring.palette import BLUE, GREEN, GREY, ORANGE, RED

__all__ = ["draw"]


def draw(figure: Any, test: Any) -> None:
    """Losses, the smoothed loss, and upright lines at the two rates."""
    axes = figure.subplots()
    finite, known = np.isfinite(test.losses), np.isfinite(test.smoothed)
    axes.plot(test.rates[finite], test.losses[finite], ".", color=GREY, markersize=4, label="loss after the update")
    if np.isfinite(test.largest_stable):
        axes.plot(test.rates[known], test.smoothed[known], "-", color=BLUE, linewidth=1.6, label="smoothed")
    if not finite.all():
        height, transform = np.full(int((~finite).sum()), 0.97), axes.get_xaxis_transform()
        axes.plot(test.rates[~finite], height, "x", color=RED, transform=transform, label="not finite")
    for rate, colour, style, what in (
        (test.steepest, GREEN, "--", "steepest fall"),
        (test.largest_stable, ORANGE, "-.", "largest stable" if test.rose else "stable at least until"),
    ):
        if np.isfinite(rate):
            axes.axvline(rate, color=colour, linestyle=style, linewidth=1.4, label=f"{what}: {rate:.2g}")
    axes.set_xscale("log")
    _limit(axes, test)
    axes.set_title("Learning-rate range test: one update for each rate", fontsize=11)
    axes.set(xlabel="learning rate", ylabel="loss of the next batch")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _limit(axes: Any, test: Any) -> None:
    """The range of the smoothed loss: what diverged would hide it. Logarithmic where it spans decades."""
    known = test.smoothed[np.isfinite(test.smoothed)]
    if not len(known) or np.isnan(test.largest_stable):  # all of it diverged: nothing that could be hidden
        return
    low, high = float(known.min()), float(known.max())
    inside = test.losses[np.isfinite(test.losses) & (test.losses <= high)]
    low = min(low, float(inside.min())) if len(inside) else low
    if low > 0 and high > 100 * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.5, high * 1.5)
    else:
        margin = 0.08 * (high - low) or 0.5 * max(abs(high), 1.0)
        axes.set_ylim(low - margin, high + margin)

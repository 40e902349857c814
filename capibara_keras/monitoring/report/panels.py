"""The nine panels of the page. Each draws one thing of a `Story`, or says that it is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from capibara_keras.monitoring import figures
from capibara_keras.monitoring.report.gradient_panels import gradient_panel, histogram_panel, layers_panel
from capibara_keras.monitoring.report.loss_panels import loss_panel, rate_panel, text_panel
from capibara_keras.monitoring.report.parts import UPDATE
from capibara_keras.monitoring.report.story import Story
from capibara_keras.monitoring.report.weight_panels import norm_panel, ratio_panel, silent_panel

__all__ = ["PANELS", "draw"]

PANELS: tuple[Callable[[Any, Story], None], ...] = (
    loss_panel,
    rate_panel,
    text_panel,
    gradient_panel,
    layers_panel,
    histogram_panel,
    ratio_panel,
    norm_panel,
    silent_panel,
)
"""From top left to bottom right."""


def draw(story: Story, title: str) -> Any:
    """The figure, in the shape of A4 across.

    Args:
        title: above it.
    """
    from matplotlib.ticker import MaxNLocator

    figure = figures.new(16.5, 11.7)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    figure.suptitle(title, fontsize=15)
    for axes, panel in zip(figure.subplots(3, 3).flat, PANELS, strict=True):
        panel(axes, story)
        axes.title.set_fontsize(11)
        axes.tick_params(labelsize=8)
        if axes.get_xlabel() == UPDATE:
            axes.set_xlim(*_reach(story))
            axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    return figure


def _reach(story: Story) -> tuple[float, float]:
    """First and last update, the same for all panels over updates."""
    x = story.series("update")
    return float(x.min()), float(max(x.max(), x.min() + 1))

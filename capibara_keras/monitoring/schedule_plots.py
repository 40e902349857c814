"""A learning-rate schedule in numbers, and drawn, before any training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras.monitoring import figures
from capibara_keras.monitoring.palette import BLUE, GREEN, ORANGE
from capibara_keras.records import Record

__all__ = ["ScheduleCurve"]


@dataclass(frozen=True, eq=False)
class ScheduleCurve(Record):
    """The learning rate of each update.

    Args:
        steps: indices of updates, from 0; 1000 at most.
        rates: the rate of each.
        warmup_steps: updates until the rate has reached its peak; 0 without a warmup.
        total_steps: where the schedule ends by itself; `nan` if it does not, or that is not known.
        name: of the schedule.

    >>> curve = ScheduleCurve(np.arange(3), np.array([0.0, 0.5, 1.0]), warmup_steps=2)
    >>> curve.peak, curve.plot().axes[0].get_xlabel()
    (1.0, 'update (index)')
    """

    steps: np.ndarray = field(repr=False)
    rates: np.ndarray = field(repr=False)
    warmup_steps: int = 0
    total_steps: float = float("nan")
    name: str = "schedule"

    @property
    def peak(self) -> float:
        """The highest rate of the curve."""
        return float(self.rates.max())

    def draw(self, figure: Any) -> None:
        """Draw into a figure of matplotlib."""
        draw(figure, self)

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure with the warmup marked, written to `path` (.png, .svg or .pdf) if there is one.

        Raises:
            ConfigError: the file cannot be written.
        """
        figure = figures.new()
        self.draw(figure)
        return figures.save(figure, path)


def draw(figure: Any, curve: ScheduleCurve) -> None:
    """The rate, a band for the warmup, the peak and the end."""
    axes = figure.subplots()
    steps, rates = curve.steps, curve.rates
    axes.plot(steps, rates, "-", color=BLUE, linewidth=1.5, label="learning rate")
    last = float(steps[-1])
    if curve.warmup_steps:
        end = min(curve.warmup_steps, last)
        axes.axvspan(0, end, color=GREEN, alpha=0.15, linewidth=0, label=f"warmup: {curve.warmup_steps} updates")
    peak = int(np.argmax(rates))
    axes.plot(steps[peak], rates[peak], "o", color=ORANGE, label=f"peak: {rates[peak]:.3g}")
    if curve.total_steps <= last:
        axes.axvline(curve.total_steps, color="#666666", linestyle=":", label=f"end: update {curve.total_steps:.0f}")
    axes.set_ylim(0, 1.08 * curve.peak or 1.0)
    axes.set_xlim(-0.01 * last, 1.01 * last)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.set_title(f"Learning rate of {curve.name}, before training", fontsize=11)
    axes.set(xlabel="update (index)", ylabel="learning rate")
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)

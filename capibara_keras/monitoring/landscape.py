"""The loss around a model's weights, in numbers; `landscape_plots` draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras.monitoring import figures, landscape_plots
from capibara_keras.records import Record

__all__ = ["LossLine", "LossPlane"]


@dataclass(frozen=True, eq=False)
class LossLine(Record):
    """The loss along a random, filter-normalised line through a model's weights.

    Args:
        distances: of each point from the weights; 1 means that each filter was moved by its own length.
        losses: at each point, `inf` where it was not finite.
        seed: of the direction.
        samples: that the loss is the mean of.

    >>> line = LossLine(np.array([-1.0, 0.0, 1.0]), np.array([4.0, 0.5, 2.0]), seed=0, samples=32)
    >>> line.loss, line["seed"]
    (0.5, 0)
    >>> line.plot().axes[0].get_ylabel()
    'loss (mean of 32 samples)'
    """

    distances: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    seed: int
    samples: int

    @property
    def loss(self) -> float:
        """At the weights themselves."""
        return float(self.losses[len(self.losses) // 2])

    def draw(self, figure: Any) -> None:
        """Draw into a figure of matplotlib."""
        landscape_plots.draw_line(figure, self.distances, self.losses, self.samples)

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure, written to `path` (.png, .svg or .pdf) if there is one.

        Raises:
            ConfigError: the file cannot be written.
        """
        figure = figures.new()
        self.draw(figure)
        return figures.save(figure, path)


@dataclass(frozen=True, eq=False)
class LossPlane(Record):
    """The loss on a plane through a model's weights: of two random, filter-normalised directions, or the plane that a
    path of training stays closest to.

    Args:
        x, y: distances from the weights along the two directions: in lengths of filters, or for a path in units of
            weight.
        losses: at each point, of shape (y, x), `inf` where it was not finite.
        seed: of the directions; -1 for a path.
        samples: that the loss is the mean of.
        path: of shape (checkpoints, 2): the checkpoints, projected to the plane; empty without a path.
        path_updates: the number of updates at each of them; empty if it is not known.
        explained: share of the path's variance in the plane; `nan` without a path.
        random_walk: what `explained` would be for a random walk of as many checkpoints.

    >>> grid = np.array([-1.0, 0.0, 1.0])
    >>> plane = LossPlane(grid, grid, np.add.outer(grid**2, grid**2), seed=0, samples=32)
    >>> plane.loss, plane.explained
    (0.0, nan)
    """

    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    seed: int
    samples: int
    path: np.ndarray = field(default_factory=lambda: landscape_plots.NO_PATH)
    path_updates: tuple[int, ...] = ()
    explained: float = float("nan")
    random_walk: float = float("nan")

    @property
    def loss(self) -> float:
        """At the weights themselves; `nan` where they are no point of the grid."""
        i, j = np.flatnonzero(self.y == 0), np.flatnonzero(self.x == 0)
        return float(self.losses[i[0], j[0]]) if len(i) and len(j) else float("nan")

    @property
    def caution(self) -> str:
        """What `explained` means; nothing without a path.

        >>> grid = np.zeros(3)
        >>> LossPlane(grid, grid, np.zeros((3, 3)), -1, 8, explained=0.9, random_walk=0.78).caution
        'the plane holds 90 % of the variance of the path; of a pure random walk it would hold 78 %'
        """
        if np.isnan(self.explained):
            return ""
        return (
            f"the plane holds {self.explained:.0%} of the variance of the path; of a pure random walk it would hold "
            f"{self.random_walk:.0%}"
        ).replace("%", " %")

    def draw(self, figure: Any) -> None:
        """Draw into a figure of matplotlib."""
        landscape_plots.draw_plane(
            figure, self.x, self.y, self.losses, self.samples, self.path, self.path_updates, self.caution
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """A figure, written to `path` (.png, .svg or .pdf) if there is one.

        Raises:
            ConfigError: the file cannot be written.
        """
        figure = figures.new(7.5, 6.0)
        self.draw(figure)
        return figures.save(figure, path)

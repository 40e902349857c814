"""The numbers of a whole training in memory that does not grow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from capibara_keras.monitoring.alerts import Alert
from capibara_keras.monitoring.observation import Observation, Subject
from capibara_keras.monitoring.reader import read, records
from capibara_keras.monitoring.report.layer_tables import BY_LAYER, observed, recorded

__all__ = ["Story"]

ROWS = 1000
"""Rows that are kept; with twice as many, neighbours are merged."""

EARLY = 100
"""Gradient norms of the start that are kept as they are."""


def _finite_mean(x: np.ndarray) -> float:
    """One loss that is not finite must not hide the others; `loss_high` keeps that there was one."""
    finite = x[np.isfinite(x)]
    return float(finite.mean()) if len(finite) else math.inf


MERGED: dict[str, Callable[[np.ndarray], Any]] = {
    "update": np.nanmax,
    "loss": _finite_mean,
    "loss_high": np.nanmax,
    "learning_rate": np.nanmax,
    "gradient_norm": np.nanmedian,
    "gradient_low": np.nanmin,
    "gradient_high": np.nanmax,
    "clip_threshold": np.nanmean,
    "clipped": np.nanmean,
    "skipped": np.nansum,
    "parameter_norm": np.nanmean,
    "update_norm": np.nanmean,
}
"""Series -> how two neighbours become one. Peaks stay, so that nothing that happened can vanish from the page."""

NUMBERS = ("loss", "learning_rate", "gradient_norm", "parameter_norm", "update_norm", "clip_threshold")
"""What is read of a history."""


class Story:
    """A training from its first update to now, in rows that each stand for 1, 2, 4, … updates.

    Args:
        layers: names, from the model's input to its output.

    Attributes:
        validation: (update, loss) of each validation.
        stride: updates that a row stands for.
        gradient_unit: of the series "gradient": "L2 norm" of a file, which does not know how large a layer is.

    >>> story = Story(())
    >>> for i in range(5000):
    ...     story.add(Observation(i, loss=1.0 / (1 + i)))
    >>> len(story.series("loss")), story.stride
    (1250, 4)
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.stride = 1
        self.updates = 0
        self.gradient_unit = "root mean square"
        self.validation: list[tuple[float, float]] = []
        self.alerts: list[Alert] = []
        self._norms, self._early, self._late = 0, list[float](), deque[float](maxlen=EARLY)
        self._rows: list[list[float]] = []
        self._by_layer: list[np.ndarray] = []
        self._open: list[tuple[list[float], np.ndarray]] = []

    @classmethod
    def of(cls, source: Any) -> Story:
        """The story that a history tells: a file of `HealthMonitor`, a list of records, a Keras `History`, ….

        Raises:
            ConfigError: as `generate_training_plots`.
        """
        history = read(source)
        layers, tables = recorded(records(source))
        story = cls(layers)
        story.gradient_unit = "L2 norm"
        for i in range(len(history.step)):
            values: dict[str, Any] = {name: float(getattr(history, name)[i]) for name in NUMBERS}
            values |= {name: bool(getattr(history, name)[i] == 1) for name in ("clipped", "skipped")}
            story.add(Observation(int(history.step[i]), **values), tables[i] if layers else None)
        story.alerts = list(history.alerts)
        return story

    def add(self, x: Observation, layers: np.ndarray | None = None) -> None:
        """Take in an update.

        Args:
            layers: `BY_LAYER` of each layer, a row each; default: not known.
        """
        norm = x.gradient_norm
        row = [x.update, x.loss, x.loss, x.learning_rate, norm, norm, norm, x.clip_threshold]
        row += [float(x.clipped), float(x.skipped), x.parameter_norm, x.update_norm]
        unknown = np.full((len(BY_LAYER), len(self.layers)), np.nan)
        self._open.append((row, unknown if layers is None else layers))
        self.updates += 1
        if math.isfinite(norm):
            self._norms += 1
            if len(self._early) < EARLY:
                self._early.append(norm)
            self._late.append(norm)
        if len(self._open) == self.stride:
            self._close()

    def validate(self, update: float, loss: float) -> None:
        """Take in a validation; of very many every second one is kept."""
        self.validation.append((update, loss))
        if len(self.validation) >= 2 * ROWS:
            self.validation = self.validation[::2]

    def then_and_now(self) -> tuple[list[float], list[float]]:
        """Finite norms of the gradient: the first 100 and the last 100; of fewer than 200 the halves."""
        early, late = self._early, list(self._late)
        if self._norms >= 2 * EARLY:
            return early, late
        known = [*early, *late[len(early) + len(late) - self._norms :]]
        return known[: self._norms // 2], known[self._norms // 2 :]

    def series(self, name: str) -> np.ndarray:
        """A series of `MERGED`, one number per row; `nan` where it is not known, `inf` where it was not finite."""
        rows = self._rows + ([_merged([row for row, _ in self._open])] if self._open else [])
        return np.array([row[list(MERGED).index(name)] for row in rows], np.float64)

    def by_layer(self, name: str) -> np.ndarray:
        """A series of `BY_LAYER`, a row per layer."""
        known = self._by_layer + ([_mean([layers for _, layers in self._open])] if self._open else [])
        if not known:
            return np.zeros((len(self.layers), 0))
        return np.stack([table[BY_LAYER.index(name)] for table in known], axis=1)

    def take(self, observations: Iterable[Observation], subject: Subject, silent: np.ndarray | None = None) -> None:
        """Take in what a `Watch` has just read.

        Args:
            silent: share of each layer's units that have no gradient now.
        """
        if subject.layers != self.layers and not self._rows and not self._open:
            self.layers = subject.layers
        same = subject.layers == self.layers
        for x in observations:
            self.add(x, observed(x, subject, silent) if same else None)

    @property
    def last_update(self) -> float:
        """Index of the last update; -1 if there is none."""
        series = self.series("update")
        return float(series[-1]) if len(series) else -1.0

    def _close(self) -> None:
        self._rows.append(_merged([row for row, _ in self._open]))
        self._by_layer.append(_mean([layers for _, layers in self._open]))
        self._open = []
        if len(self._rows) >= 2 * ROWS:
            pairs = range(0, len(self._rows), 2)
            self._rows = [_merged(self._rows[i : i + 2]) for i in pairs]
            self._by_layer = [_mean(self._by_layer[i : i + 2]) for i in pairs]
            self.stride *= 2


def _merged(rows: Sequence[Sequence[float]]) -> list[float]:
    """One row for several."""
    columns = np.array(rows, np.float64).T
    known = ~np.isnan(columns)
    with np.errstate(all="ignore"):
        merges = zip(MERGED.values(), columns, known, strict=True)
        return [float(merge(column)) if some.any() else math.nan for merge, column, some in merges]


def _mean(tables: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of what is known."""
    stacked = np.stack(tables)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

"""A training's history, from whatever kept it, as arrays."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.monitoring.alerts import Alert

__all__ = ["TrainingHistory", "read", "records"]


@dataclass(frozen=True, eq=False)
class TrainingHistory:
    """One array per series, all of one length; `nan` where a number is not known.

    Args:
        unit: "update" or "epoch": what `step` counts.
        step: index of each point.
        learning_rate, gradient_norm, parameter_norm, update_norm, clip_threshold, clipped, skipped, loss: as in
            `StepRecord`; the flags are 1, 0, or `nan`.
        alerts: what was said during the training.
    """

    unit: str
    step: np.ndarray
    learning_rate: np.ndarray
    gradient_norm: np.ndarray
    parameter_norm: np.ndarray
    update_norm: np.ndarray
    clip_threshold: np.ndarray
    clipped: np.ndarray
    skipped: np.ndarray
    loss: np.ndarray
    alerts: tuple[Alert, ...] = ()

    def knows(self, name: str) -> bool:
        """Whether a series has a number anywhere; an infinite one counts."""
        return not bool(np.isnan(getattr(self, name)).all())


SERIES = tuple(f.name for f in dataclasses.fields(TrainingHistory) if f.name not in ("unit", "step", "alerts"))
"""Names that are read; others are left alone."""

FLAGS = ("clipped", "skipped")
"""In Keras' logs these count updates so far, and are no property of one point."""

FIELDS = tuple(f.name for f in dataclasses.fields(Alert))


def read(source: Any) -> TrainingHistory:
    """The history that `source` holds.

    Args:
        source: a list of `StepRecord` or of dictionaries with their names (a dictionary {"alert": …} is an alert); a
            dictionary of lists; a Keras `History`, whose points are epochs; or the path of a file of JSON lines, as
            `HealthMonitor` writes it. A last line that is not whole yet is left out.

    Raises:
        ConfigError: something else, nothing in it, lists of different lengths, or what is no number.

    >>> read({"loss": [1.0, None], "learning_rate": [0.1, 0.2]}).loss.tolist()
    [1.0, nan]
    """
    if isinstance(source, TrainingHistory):
        return source
    if isinstance(source, (str, Path)):
        return _rows(_lines(Path(source)))
    logs = getattr(source, "history", None)
    if isinstance(logs, Mapping):
        columns = {name: values for name, values in logs.items() if name not in FLAGS}
        return _columns(columns | {"update": _or_count(getattr(source, "epoch", None), logs)}, "epoch")
    if isinstance(source, Mapping):
        return _columns(source, "update")
    if isinstance(source, Iterable):
        return _rows(list(source))
    raise errors.ConfigError(
        "metrics_history: expected a list of records, a dictionary of lists, a Keras History or a path, "
        f"received {type(source).__name__}"
    )


def records(source: Any) -> list[Mapping[str, Any]]:
    """The records of a file or a list, one for each point of `read`, without alerts; none of another source."""
    rows = _lines(Path(source)) if isinstance(source, (str, Path)) else source if isinstance(source, list) else []
    return [row for row in rows if "alert" not in row]


def _lines(path: Path) -> list[Any]:
    """The objects of a file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"metrics_history: cannot read {str(path)!r}: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) or line.endswith("\n"):
                raise errors.ConfigError(f"metrics_history: {path}:{number} is no JSON: {error}") from error
    return rows


def _rows(rows: Sequence[Any]) -> TrainingHistory:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise errors.ConfigError(f"metrics_history[{i}]: expected a record, received {type(row).__name__}")
    alerts = tuple(_alert(row["alert"]) for row in rows if "alert" in row)
    points = [row for row in rows if "alert" not in row]
    names = [name for name in ("update", *SERIES) if any(name in row for row in points)]
    return _columns({name: [row.get(name) for row in points] for name in names}, "update", alerts)


def _columns(columns: Mapping[str, Any], unit: str, alerts: tuple[Alert, ...] = ()) -> TrainingHistory:
    arrays = {name: _array(name, columns[name]) for name in ("update", *SERIES) if name in columns}
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise errors.ConfigError(f"metrics_history: series of different lengths: {listed}")
    n = max(lengths.values(), default=0)
    if n == 0 or set(arrays) <= {"update"}:
        raise errors.ConfigError(f"metrics_history: it is empty; none of {', '.join(SERIES)} is in it")
    count = np.arange(n, dtype=np.float64)
    step = arrays.pop("update", count)
    unknown = np.full(n, np.nan)
    series = {name: arrays.get(name, unknown) for name in SERIES}
    return TrainingHistory(unit=unit, step=np.where(np.isnan(step), count, step), **series, alerts=alerts)


def _array(name: str, values: Any) -> np.ndarray:
    try:
        array = np.array([math.nan if x is None else float(x) for x in values], np.float64)
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(f"metrics_history: {name} is no list of numbers: {error}") from error
    return array


def _or_count(epochs: Sequence[int] | None, logs: Mapping[str, Any]) -> Sequence[int]:
    """Epochs as Keras counts them, from 0."""
    n = max(map(len, logs.values()), default=0)
    return epochs if epochs and len(epochs) == n else range(n)


def _alert(values: Any) -> Alert:
    if isinstance(values, Alert):
        return values
    if not isinstance(values, Mapping) or not {"id", "level", "step"} <= set(values):
        raise errors.ConfigError(f"metrics_history: an alert needs id, level and step, received {values!r}")
    defaults = {"message": "", "suggestion": "", "layer": "", "value": math.nan, "threshold": math.nan}
    known = {name: value for name, value in values.items() if name in FIELDS and value is not None}
    return Alert(**(defaults | known))

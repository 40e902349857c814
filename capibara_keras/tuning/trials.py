"""What is known about the trials of a search."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from capibara_keras.records import Record
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.search_space import SearchSpace

__all__ = ["Search", "TrialRecord"]

DONE = ("completed", "pruned", "diverged", "failed")
"""States that a trial ends in."""


@dataclass(frozen=True, eq=False)
class TrialRecord(Record):
    """One trial.

    Args:
        number: from 0.
        options: the configuration: a value for each searched option that applies.
        status: "running"; "completed", also where patience ended it; "pruned" by early termination; "diverged",
            where loss or metric were not finite; "failed" by an exception.
        score: the best value of the metric; `nan` if there is none.
        best_step: where the best value was.
        steps: trained, in batches.
        curve: "step" -> the steps of the evaluations; name of a metric -> its values there.
        seconds: wall time.
        message: why it failed.

    >>> trial = TrialRecord(0, {"learning_rate": 0.1}, "completed", 0.5)
    >>> trial["score"], trial.seconds
    (0.5, nan)
    """

    number: int
    options: Values
    status: str = "running"
    score: float = math.nan
    best_step: int = 0
    steps: int = 0
    curve: Mapping[str, list[Any]] = field(default_factory=lambda: {"step": []})
    seconds: float = math.nan
    message: str = ""

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.status in DONE

    def observed(self, step: int, metrics: Mapping[str, float]) -> TrialRecord:
        """The trial with one evaluation more."""
        curve = {name: [*values] for name, values in self.curve.items()}
        length = len(curve["step"])
        for name, value in metrics.items():
            curve.setdefault(name, [math.nan] * length).append(float(value))
        curve["step"].append(int(step))
        return dataclasses.replace(self, curve=curve, steps=int(step))

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is not finite becomes `None` or a string."""
        return {name: _plain(self[name]) for name in self}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialRecord:
        """The inverse of `to_json`."""
        curve = {name: [_number(x) for x in values] for name, values in data["curve"].items()}
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(
            **{name: value for name, value in data.items() if name in known}
            | {"curve": curve, "score": _number(data["score"]), "seconds": _number(data["seconds"])}
        )


@dataclass(frozen=True)
class Search:
    """What an algorithm proposes from.

    Args:
        space: what is searched.
        trials: all so far, running ones included, by number.
        maximize: whether larger scores are better.
        max_trials: how many there will be.
        seed: of all random numbers.
    """

    space: SearchSpace
    trials: Sequence[TrialRecord]
    maximize: bool
    max_trials: int
    seed: int

    def loss(self, trial: TrialRecord) -> float:
        """The score, to be minimised; `inf` for a trial that diverged or failed, `nan` for one that runs."""
        if trial.status in ("diverged", "failed"):
            return math.inf
        return -trial.score if self.maximize else trial.score

    @property
    def tried(self) -> list[Values]:
        """The configurations so far."""
        return [trial.options for trial in self.trials]

    def best(self) -> TrialRecord | None:
        """The trial with the best score. One that was pruned was not measured in full: it counts only if no other
        has a score."""
        for statuses in (("completed",), ("pruned",)):
            scored = [t for t in self.trials if t.status in statuses and math.isfinite(t.score)]
            if scored:
                return min(scored, key=lambda t: (self.loss(t), t.number))
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _number(value: Any) -> Any:
    return math.nan if value is None else float(value) if isinstance(value, str) else value

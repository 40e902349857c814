"""Alerts against labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.health.autotrainer import MEANING, judge
from benchmarks.health.case import Case
from benchmarks.health.recording import Recording
from capibara_keras.monitoring import Alert, HealthRule, Monitor

__all__ = ["Run", "Score", "replay", "score"]


@dataclass(frozen=True)
class Run:
    """One judged training."""

    case: Case
    task: str
    seed: int
    alerts: tuple[Alert, ...]
    onset: int

    @property
    def hits(self) -> list[Alert]:
        """What was rightly said."""
        return [a for a in self.alerts if a.level != "info" and a.id in self.case.expected and a.step >= self.onset]

    @property
    def false(self) -> list[Alert]:
        """What should not have been said."""
        right = (*self.case.expected, *self.case.allowed)
        return [a for a in self.alerts if a.level != "info" and (a.id not in right or a.step < self.onset)]

    @property
    def delay(self) -> int | None:
        """Updates from the beginning of the problem to the first right alert."""
        return min(a.step for a in self.hits) - self.onset if self.hits else None

    @property
    def names_layer(self) -> bool:
        """Whether the first right alert names the layer, where there is one to name."""
        named = self.hits[0].layer if self.hits else ""
        return not self.case.layer or any(part in named for part in self.case.layer)


@dataclass
class Score:
    """Counts over runs."""

    runs: int = 0
    sick: int = 0
    found: int = 0
    true: int = 0
    false: int = 0
    disturbed: int = 0
    named: int = 0
    delays: list[int] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)

    @property
    def precision(self) -> float:
        """Share of what was said that is right."""
        return self.true / (self.true + self.false) if self.true + self.false else float("nan")

    @property
    def recall(self) -> float:
        """Share of the sick trainings that were found."""
        return self.found / self.sick if self.sick else float("nan")

    @property
    def delay(self) -> float:
        """Median, in updates."""
        return float(np.median(self.delays)) if self.delays else float("nan")


def replay(recording: Recording, rules: Iterable[HealthRule] | None = None) -> list[Alert]:
    """What a monitor says to a recording."""
    monitor = Monitor(recording.subject) if rules is None else Monitor(recording.subject, rules)
    alerts: list[Alert] = []
    for observation in recording.observations:
        alerts += monitor.observe(observation)
        if observation.update in recording.validations:
            alerts += monitor.validate(observation.update, recording.validations[observation.update])
    return alerts


def replay_autotrainer(recording: Recording, case: Case) -> list[Alert]:
    """The baseline's reports, as the alert of ours that they mean: the expected one, if it is among them."""
    found = []
    for problem, update in judge(recording.epochs):
        meant = MEANING[problem]
        name = next((name for name in case.expected if name in meant), meant[0])
        found.append(Alert(name, "warning", problem, "", update, "", float("nan"), float("nan")))
    return found


def score(runs: Sequence[Run]) -> Score:
    """Count. Each id counts once per run."""
    total = Score()
    for run in runs:
        total.runs += 1
        wrong = {alert.id for alert in run.false}
        total.false += len(wrong)
        total.wrong.update(f"{run.case.name}/{run.task}: {name}" for name in wrong)
        if run.case.healthy:
            total.disturbed += bool(wrong)
            continue
        total.sick += 1
        total.true += len({alert.id for alert in run.hits})
        total.found += bool(run.hits)
        total.named += run.names_layer and bool(run.hits)
        if run.delay is not None:
            total.delays.append(run.delay)
    return total

"""The keras-tuner oracle of a search: hands out trials, hears their results, and keeps everything in one file."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner

from capibara_keras.tuning.algorithms import propose
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.halving import Rungs
from capibara_keras.tuning.hypermodel import hyperparameters
from capibara_keras.tuning.metric import Metric
from capibara_keras.tuning.state import Project
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["Oracle"]


class Oracle(keras_tuner.Oracle):
    """Speaks keras-tuner's protocol (`create_trial`, `update_trial`, `end_trial`, …), also to workers elsewhere, and
    keeps its own records.

    A trial whose metric is not finite has diverged: it is over, and counts as the worst. A trial of a worker that
    has not been heard of for `lease` seconds is given to the next one that asks.

    Args:
        search: space, trials so far, seed.
        algorithm: name in `ALGORITHMS`.
        metric: what is better.
        rungs: early termination.
        warmup: steps of a configuration before its rate is up.
        project: where the state is kept.
        fingerprint: what a search must agree in to go on from a file.
        lease: seconds; `None` in a single process.
        on_end: called with the record of each trial that ends, and everything so far.
    """

    def __init__(
        self,
        search: Search,
        algorithm: str,
        metric: Metric,
        rungs: Rungs,
        warmup: Callable[[Values], int],
        project: Project,
        fingerprint: Mapping[str, Any],
        lease: float | None = None,
        on_end: Callable[[TrialRecord, Search], None] = lambda record, search: None,
    ) -> None:
        super().__init__(
            objective=keras_tuner.Objective(metric.name, "max" if metric.maximize else "min"),
            max_trials=search.max_trials,
            hyperparameters=hyperparameters(search.space),
            seed=search.seed or None,
        )
        self.search, self.algorithm, self.metric = search, algorithm, metric
        self.rungs, self.warmup = rungs, warmup
        self.project, self.fingerprint, self.lease, self.on_end = project, dict(fingerprint), lease, on_end
        self.records: dict[int, TrialRecord] = {t.number: t for t in search.trials}
        self.orphans = [t.number for t in search.trials if t.status == "running"]
        self.exhausted = False
        self._lock = threading.RLock()
        self._started: dict[int, float] = {}
        self._heard: dict[str, float] = {}
        self._replay()

    def _replay(self) -> None:
        """What the rungs have seen."""
        for record in self.records.values():
            before, best = 0, math.inf
            for step, score in zip(record.curve["step"], record.curve.get(self.metric.name, []), strict=False):
                if not math.isfinite(score):
                    break
                best = min(best, self.metric.loss(score))
                if record.done:
                    self.rungs.keeps(record.number, before, step, best, self.warmup(record.options))
                before = step

    # Protocol ----------------------------------------------------------------------------------------------

    def create_trial(self, tuner_id: str) -> Any:
        """A trial for a worker; one that was its own, or of a worker that is gone, comes first."""
        with self._lock:
            self._heard[tuner_id] = time.monotonic()
            self.tuner_ids.add(tuner_id)
            self.expire()
            if tuner_id in self.ongoing_trials:
                number = int(self.ongoing_trials[tuner_id].trial_id)
            elif self.orphans:
                self.orphans.sort()
                number = self.orphans.pop(0)
            elif len(self.records) < self.max_trials and not self.exhausted:
                number = len(self.records)
                values = propose(self.algorithm, self.current(), number)
                if values is None:
                    self.exhausted = True
                    return self._without_work(tuner_id)
                self.records[number] = TrialRecord(number, values)
            else:
                return self._without_work(tuner_id)
            self.records[number] = TrialRecord(number, self.records[number].options)
            self._started[number] = time.monotonic()
            trial = self._trial(self.records[number])
            self.ongoing_trials[tuner_id] = trial
            self.save()
            return trial

    def _without_work(self, tuner_id: str) -> Any:
        """The answer while others may still leave a trial behind, or at the end."""
        waiting = bool(self.ongoing_trials)
        if not waiting:
            self.tuner_ids.discard(tuner_id)
        status = "IDLE" if waiting else "STOPPED"
        return keras_tuner.engine.trial.Trial(hyperparameters(self.search.space), trial_id="none", status=status)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Any:
        """An evaluation. The status of the answer is "STOPPED" if the trial shall not go on."""
        with self._lock:
            record = self.records[int(trial_id)]
            self._touch(trial_id)
            if record.done:
                return self._trial(record, "STOPPED")
            before = record.steps
            record = record.observed(step, metrics)
            losses = [self.metric.loss(x) for x in record.curve[self.metric.name]]
            if not all(math.isfinite(x) for x in (losses[-1], metrics.get("loss", 0.0))):
                record = dataclasses.replace(record, status="diverged")
            else:
                best = min(losses)
                at = losses.index(best)
                record = dataclasses.replace(
                    record, score=record.curve[self.metric.name][at], best_step=record.curve["step"][at]
                )
                if not self.rungs.keeps(record.number, before, step, best, self.warmup(record.options)):
                    record = dataclasses.replace(record, status="pruned")
            self.records[record.number] = record
            return self._trial(record, "STOPPED" if record.done else "RUNNING")

    def end_trial(self, trial: Any) -> None:
        """The end of a trial; its status is "COMPLETED", or "FAILED" with a message."""
        with self._lock:
            number = int(trial.trial_id)
            owners = [who for who, mine in self.ongoing_trials.items() if mine.trial_id == trial.trial_id]
            record = self.records[number]
            if not owners and number not in self.orphans:
                return  # it was given to another worker, who was faster
            if trial.status != "COMPLETED":
                record = dataclasses.replace(record, status="failed", message=trial.message or "")
            elif not record.done:
                record = dataclasses.replace(record, status="completed")
            if record.status in ("failed", "diverged"):
                record = dataclasses.replace(record, score=math.nan)
            seconds = time.monotonic() - self._started.get(number, math.nan)
            self.records[number] = record = dataclasses.replace(record, seconds=seconds)
            for who in owners:
                del self.ongoing_trials[who]
            if number in self.orphans:
                self.orphans.remove(number)
            self.save()
            self.on_end(record, self.current())

    def get_trial(self, trial_id: str) -> Any:
        """A trial; asking for it also tells that its worker is alive."""
        with self._lock:
            self._touch(trial_id)
            record = self.records[int(trial_id)]
            return self._trial(record, "STOPPED" if record.done else "RUNNING")

    def get_best_trials(self, num_trials: int = 1) -> list[Any]:
        """The best of those that were measured in full."""
        with self._lock:
            search = self.current()
            done = [t for t in search.trials if t.status == "completed" and math.isfinite(t.score)]
            best = sorted(done, key=lambda t: (search.loss(t), t.number))[:num_trials]
            return [self._trial(record, "COMPLETED") for record in best]

    def remaining_trials(self) -> int:
        """How many have not ended."""
        return self.max_trials - sum(record.done for record in self.records.values())

    # Workers that are gone ---------------------------------------------------------------------------------

    def _touch(self, trial_id: str) -> None:
        for who, mine in self.ongoing_trials.items():
            if mine.trial_id == trial_id:
                self._heard[who] = time.monotonic()

    def expire(self) -> None:
        """Take back the trials of workers that were not heard of for longer than the lease."""
        if self.lease is None:
            return
        with self._lock:
            now = time.monotonic()
            for who in [who for who in self.tuner_ids if now - self._heard.get(who, now) > self.lease]:
                self.tuner_ids.discard(who)
                if who in self.ongoing_trials:
                    self.orphans.append(int(self.ongoing_trials.pop(who).trial_id))

    # State -------------------------------------------------------------------------------------------------

    def current(self) -> Search:
        """Everything so far."""
        return dataclasses.replace(self.search, trials=[self.records[n] for n in sorted(self.records)])

    def save(self) -> None:
        """Write the state."""
        records = [self.records[n].to_json() for n in sorted(self.records)]
        self.project.save({"search": self.fingerprint, "trials": records})

    def reload(self) -> None:
        """Nothing: the state comes in through the constructor."""

    def _trial(self, record: TrialRecord, status: str = "RUNNING") -> Any:
        trial = keras_tuner.engine.trial.Trial(
            hyperparameters(self.search.space, record.options), trial_id=str(record.number), status=status
        )
        if math.isfinite(record.score):
            trial.score, trial.best_step = record.score, record.best_step
        return trial

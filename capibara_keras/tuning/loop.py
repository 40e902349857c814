"""The loop of keras-tuner that asks for trials and runs them, alone, or as one of several workers with a chief."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import keras_tuner
from keras_tuner.src.distribute import utils as roles  # keras-tuner's own test of the environment variables

from capibara_keras.errors import TuningError
from capibara_keras.files import write_whole
from capibara_keras.tuning.hypermodel import decoded
from capibara_keras.tuning.oracle import Oracle
from capibara_keras.tuning.runner import Runner
from capibara_keras.tuning.state import Project
from capibara_keras.warning import warn

__all__ = ["Loop", "is_chief", "is_worker"]

BROKEN = 3
"""If the first so many trials fail, it is not the configurations."""


class Loop(keras_tuner.engine.base_tuner.BaseTuner):
    """Runs the trials of an oracle.

    Args:
        oracle: gives them.
        runner: makes a runner, or returns the one there is.
        project: where weights are kept.
        wait: seconds between two questions while there is nothing to do.
    """

    def __init__(self, oracle: Oracle, runner: Callable[[], Runner], project: Project, wait: float = 1.0) -> None:
        self.chief, self.runner, self.project, self.wait = oracle, runner, project, wait
        super().__init__(oracle, directory=str(project.folder.parent), project_name=project.folder.name)

    def search(self) -> None:
        """All trials, or for a chief, until the workers have done them."""
        if is_chief():
            self._serve()
            return
        failed, working = 0, any(t.done and t.status != "failed" for t in self.chief.search.trials)
        while (trial := self.oracle.create_trial(self.tuner_id)).status != "STOPPED":
            if trial.status == "IDLE":
                time.sleep(self.wait)
                continue
            error = self.run_trial(trial)
            failed, working = failed + 1, working or error is None
            if failed >= BROKEN and not working:
                raise TuningError(
                    f"the first {failed} trials all failed, so it is hardly the configurations: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def run_trial(self, trial: Any) -> Exception | None:
        """One trial; the exception that it failed with, if it did."""
        values = decoded(self.chief.search.space, trial.hyperparameters.values)
        best = self.oracle.get_best_trials(1)
        limit = self.chief.metric.loss(best[0].score) if best else math.inf
        answers = ["RUNNING"]

        def report(step: int, metrics: dict[str, float]) -> bool:
            answers.append(self.oracle.update_trial(trial.trial_id, metrics, step=step).status)
            return answers[-1] == "RUNNING"

        failure = None
        with self._heartbeat(trial):
            try:
                runner = self.runner()
                weights = runner.run(values, report, lambda loss: loss < limit)
                if weights is not None and answers[-1] == "RUNNING":
                    number = int(trial.trial_id)
                    write_whole(self.project.weights(number), lambda path: runner.save(weights, path))
                trial.status = "COMPLETED"
            except Exception as error:
                failure, trial.status = error, "FAILED"
                trial.message = traceback.format_exc(limit=-5)
                warn(f"trial {trial.trial_id} failed: {type(error).__name__}: {error}")
            self.oracle.end_trial(trial)
        return failure

    @contextlib.contextmanager
    def _heartbeat(self, trial: Any) -> Iterator[None]:
        """Tell the chief now and then that this worker is alive."""
        lease = self.chief.lease
        if self.oracle is self.chief or lease is None:
            yield
            return
        over = threading.Event()

        def beat() -> None:
            while not over.wait(lease / 4):
                with contextlib.suppress(Exception):  # a chief that is away may come back
                    self.oracle.get_trial(trial.trial_id)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _serve(self) -> None:
        over = threading.Event()

        def watch() -> None:
            assert self.chief.lease is not None
            while not over.wait(self.chief.lease / 4):
                self.chief.expire()

        threading.Thread(target=watch, daemon=True).start()
        try:
            super().search()
        finally:
            over.set()

    def save(self) -> None:
        """Nothing: the oracle keeps everything."""

    def reload(self) -> None:
        """Nothing, likewise."""


def is_chief() -> bool:
    """Whether this process only hands out trials (`KERASTUNER_TUNER_ID` is "chief")."""
    return bool(roles.is_chief_oracle())


def is_worker() -> bool:
    """Whether this process gets its trials from a chief."""
    return bool(roles.has_chief_oracle()) and not is_chief()

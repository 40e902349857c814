"""A stream of observations in, metrics and alerts out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from capibara_keras.monitoring.alerts import Alert
from capibara_keras.monitoring.engine import Engine
from capibara_keras.monitoring.history import WINDOW, History
from capibara_keras.monitoring.metrics import OptimizationMetrics
from capibara_keras.monitoring.observation import Observation, Subject
from capibara_keras.monitoring.rules import DEFAULT_RULES, HealthRule

__all__ = ["Monitor"]

KEPT = 1000
"""Alerts that are kept."""


class Monitor:
    """Watches one training, from whatever brings observations: a callback, a loop, a file.

    Args:
        subject: what is known of the training.
        rules: what to look for: `DEFAULT_RULES`, with rules of one's own behind them, say.

    Attributes:
        alerts: the last 1000, and `raised` how many there have been.

    >>> subject = Subject(paths=("dense/kernel",), shapes=((2, 2),))
    >>> monitor = Monitor(subject)
    >>> [alert.id for alert in monitor.observe(Observation(0, loss=float("inf"), gradient_norm=float("inf")))]
    ['nonfinite_loss']
    >>> monitor.observe(Observation(1, loss=0.5, gradient_norm=1.0))
    []
    """

    def __init__(self, subject: Subject, rules: Iterable[HealthRule] = DEFAULT_RULES) -> None:
        self.subject = subject
        self.engine = Engine(rules)
        self.history = History(subject)
        self.alerts: deque[Alert] = deque(maxlen=KEPT)
        self.raised = 0
        self._snapshot: tuple[int, list[np.ndarray]] | None = None

    def observe(self, observation: Observation) -> list[Alert]:
        """Take in the next update.

        Returns:
            What is new.
        """
        self.history.observe(observation)
        return self._check()

    def begin_epoch(self) -> None:
        """The next update is the first of an epoch. Where batches come in the same order in each, losses are compared
        with those of the same batches."""
        self.history.begin_epoch()

    def validate(self, update: int, loss: float) -> list[Alert]:
        """Take in a loss on data that is not trained on, measured after `update`.

        Returns:
            What is new.
        """
        self.history.validate(update, loss)
        return self._check()

    def metrics(self) -> OptimizationMetrics:
        """The training in numbers, as of the last observation."""
        return OptimizationMetrics.of(self.history)

    def wants_snapshot(self, update: int) -> bool:
        """Whether a snapshot of the parameters would make `param_change_rate` known, or newer."""
        return self._snapshot is None or update - self._snapshot[0] >= WINDOW

    def snapshot(self, update: int, parameters: Iterable[np.ndarray]) -> None:
        """Take in the parameters after `update` updates; a copy is kept until the next ones come.

        >>> monitor = Monitor(Subject(paths=("w",), shapes=((1,),)))
        >>> monitor.snapshot(0, [np.array([1.0])])
        >>> monitor.snapshot(100, [np.array([2.0])])
        >>> monitor.metrics().param_change_rate
        0.01
        """
        arrays = [np.array(p) for p in parameters]
        if self._snapshot is not None and update > self._snapshot[0]:
            then, before = self._snapshot
            moved = sum(float(np.sum(np.square(a - b, dtype=np.float64))) for a, b in zip(arrays, before, strict=True))
            size = sum(float(np.sum(np.square(b, dtype=np.float64))) for b in before)
            if size > 0:
                self.history.parameter_change = (moved / size) ** 0.5 / (update - then)
        self._snapshot = update, arrays

    def reset(self) -> None:
        """Forget what was observed and said; the rules stay."""
        self.restart()
        self.alerts.clear()
        self.raised = 0

    def follow(self, subject: Subject) -> None:
        """The subject from now on: the same training with other options, or another one, which is observed anew."""
        if (subject.paths, subject.shapes) == (self.subject.paths, self.subject.shapes):
            self.subject = self.history.subject = subject
        else:
            self.restart(subject)

    def restart(self, subject: Subject | None = None) -> None:
        """Observe from now on, maybe another subject; the alerts are kept, and may all come again."""
        self.subject = self.subject if subject is None else subject
        self.history = History(self.subject)
        self.engine.reset()
        self._snapshot = None

    def _check(self) -> list[Alert]:
        found = self.engine.check(self.history)
        self.alerts.extend(found)
        self.raised += len(found)
        return found

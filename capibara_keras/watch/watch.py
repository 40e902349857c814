"""Watching an optimizer: nothing that an update did is missed, however seldom one looks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from capibara_keras import backend, errors, readings
from capibara_keras.monitoring import (
    DEFAULT_RULES,
    Alert,
    HealthRule,
    Monitor,
    Observation,
    OptimizationMetrics,
    Subject,
)
from capibara_keras.watch.followed import Followed
from capibara_keras.watch.losses import PendingLosses
from capibara_keras.watch.observing import observations
from capibara_keras.watch.probing import Prober

__all__ = ["Watch"]

SNAPSHOT_LIMIT = 20_000_000
"""Parameters up to which they are copied every 100 updates, for `param_change_rate`."""


class Watch:
    """Watches an optimizer: reads what its last updates did, and says what is wrong. For loops of one's own; in `fit`
    the callback `HealthMonitor` does this.

    Call `update` every few steps, at most 64 apart. It keeps scalars only, of the last 1000 updates at most.

    Args:
        optimizer: of this package.
        baseline_loss: of a model that knows nothing, see `Subject`; `None` if it is not known.
        rules: what to look for.
        every: have the optimizer measure the norms of parameters and of their change at every so many updates, unless
            it does already; do this before a function that calls `apply` is traced. `None` leaves it as it is.
        loss_scaled: whether a wrapper scales the loss, and skips updates that overflow.

    Raises:
        ConfigError: `every` below 1, or bad rules.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")
    >>> optimizer = ck.SGD(learning_rate=0.1)
    >>> watch = ck.Watch(optimizer, every=1)
    >>> optimizer.apply([keras.ops.ones((2, 2))], [w])
    >>> watch.update(loss=0.5)
    []
    >>> optimizer.apply([keras.ops.ones((2, 2)) * float("nan")], [w])
    >>> [(alert.id, alert.layer, alert.step) for alert in watch.update(loss=0.5)]
    [('nonfinite_gradient', 'w', 1)]
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        baseline_loss: float | None = None,
        rules: Iterable[HealthRule] = DEFAULT_RULES,
        every: int | None = 10,
        loss_scaled: bool = False,
    ) -> None:
        self.optimizer, self.rules, self.loss_scaled = optimizer, tuple(rules), loss_scaled
        self.baseline_loss = math.nan if baseline_loss is None else errors.number("baseline_loss", baseline_loss)
        self.monitor = Monitor(Subject((), ()), self.rules)
        self.observations: list[Observation] = []
        """Those of the last call of `update`."""
        self.knows_loss = False
        """Whether the optimizer had the loss of the last update, which nobody has to bring then."""
        self.penalties: list[float] = []
        """½ weight_decay Σ w² at each of them."""
        self._seen, self._read = 0, 0
        self._pending = PendingLosses()
        self._prober: Prober | None = None
        if every is not None and optimizer.statistics_every is None:
            optimizer.reconfigure({"statistics_every": every})

    @property
    def alerts(self) -> list[Alert]:
        """The last 1000 alerts, hints (level "info") included."""
        return list(self.monitor.alerts)

    def update(self, loss: Any = None) -> list[Alert]:
        """Take in the updates since the last call.

        Args:
            loss: of the last step, or a list of the losses of all steps since the last call (`None` for one that is
                not known); where the optimizer knows it (see `Optimizer.observe`), it is not needed.

        Returns:
            New alerts, the most serious first within an update.
        """
        self._pending.add(loss)
        if not self.optimizer.built:
            return []
        if self.is_ahead():
            self.restart()
        followed = self._follow()
        recent = self.optimizer.recent_updates(since=self._seen)
        self.knows_loss = len(recent.numbers) > 0 and not math.isnan(recent.statistics["loss"][-1])
        self.observations, self.penalties = [], recent.statistics["weight_decay_loss"].tolist()
        if not len(recent.numbers):
            return []
        losses = self._pending.take(len(recent.numbers), self.optimizer.pending_micro_batches)
        self._seen = int(recent.numbers[-1]) + 1
        self.observations = observations(self.optimizer, followed, recent, losses)
        last = self.observations[-1]
        if self.optimizer.statistics_every is not None and self._prober is not None:
            probe = self._prober.probe(self.optimizer, last.update, self._seen)
            self.observations[-1] = dataclasses.replace(last, probe=probe)
        found = [alert for observation in self.observations for alert in self.monitor.observe(observation)]
        self._take_snapshot(followed.kept, last.update + 1)
        return found

    def begin_epoch(self) -> None:
        """The next step is the first of an epoch: call it where data without shuffling come again and again, so that
        their order is not taken for a trend. Call `update` before."""
        self.monitor.begin_epoch()

    def validate(self, loss: float) -> list[Alert]:
        """Take in a loss on data that is not trained on, measured now.

        Returns:
            New alerts.
        """
        return self.monitor.validate(self.monitor.history.latest.update, float(loss))

    def metrics(self) -> OptimizationMetrics:
        """The training in numbers, as of the last call of `update`."""
        return self.monitor.metrics()

    def unread(self) -> list[Alert]:
        """The alerts since the last call."""
        alerts = self.monitor.raised
        new = min(alerts - self._read, len(self.monitor.alerts))
        self._read = alerts
        return self.alerts[len(self.monitor.alerts) - new :]

    def critical(self) -> bool:
        """Whether something critical is the matter now, or was said within 200 updates."""
        names = [rule.name for rule in self.rules if rule.level == "critical"]
        return self.monitor.engine.active(names, self.monitor.history.latest.update)

    def is_ahead(self) -> bool:
        """Whether the optimizer has made fewer updates than were seen: an earlier state was restored."""
        return bool(self.optimizer.built) and readings.attempts(self.optimizer._state) < self._seen

    def restart(self) -> None:
        """Forget what was observed, but for the alerts: the state of an earlier update was restored. `update` does so
        itself where it finds that it is ahead."""
        self._seen = readings.attempts(self.optimizer._state)
        self._pending, self._prober = PendingLosses(), None
        self.monitor.restart()

    def _follow(self) -> Followed:
        """What there is to follow; looked up again where the optimizer's options or variables changed."""
        if self._prober is None or not self._prober.followed.is_of(self.optimizer):
            followed = Followed.of(self.optimizer, self.baseline_loss, self.loss_scaled)
            self._prober = Prober(followed)
            self.monitor.follow(followed.subject)
        return self._prober.followed

    def _take_snapshot(self, kept: list[int], updates: int) -> None:
        if self.monitor.subject.sizes.sum() <= SNAPSHOT_LIMIT and self.monitor.wants_snapshot(updates):
            variables = self.optimizer._trainable_variables
            self.monitor.snapshot(updates, [backend.fetch(variables[i]) for i in kept])

"""From the optimizer's rings to a monitor: nothing that an update did is missed, however seldom one looks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, errors, inspection, readings
from capibara_keras.monitoring import (
    DEFAULT_RULES,
    Alert,
    HealthRule,
    Monitor,
    Observation,
    OptimizationMetrics,
    Probe,
    Subject,
)
from capibara_keras.pipeline import VARIABLE_HISTORY
from capibara_keras.readings import RecentUpdates

__all__ = ["Watch"]

INSPECTED = 200
"""Updates between two looks at weights and moments, which cost a copy of them; fewer at the start: each look comes
when training is twice as old as at the one before."""

SNAPSHOT_LIMIT = 20_000_000
"""Parameters up to which they are copied every 100 updates, for `param_change_rate`."""

Loss = float | None


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
        self._seen, self._read, self._inspected = 0, 0, -1
        self._pending: list[Loss] = []
        self._columns = self._moments = self._scales = np.zeros(0)
        self._followed: Any = None
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
        self._pending += [] if loss is None else [_number(x) for x in (loss if _several(loss) else [loss])]
        if not self.optimizer.built:
            return []
        self._follow()
        recent = self.optimizer.recent_updates(since=self._seen)
        self.knows_loss = len(recent.numbers) > 0 and not math.isnan(recent.statistics["loss"][-1])
        self.observations, self.penalties = [], recent.statistics["weight_decay_loss"].tolist()
        if not len(recent.numbers):
            return []
        later = min(self.optimizer.pending_micro_batches, len(self._pending))
        cut = len(self._pending) - later
        losses = _spread(self._pending[:cut], len(recent.numbers))
        self._pending, self._seen = self._pending[cut:], int(recent.numbers[-1]) + 1
        self.observations = self._observations(recent, losses)
        if self.optimizer.statistics_every is not None:
            last = self.observations[-1]
            self.observations[-1] = dataclasses.replace(last, probe=self._probe(last.update))
        found = [alert for observation in self.observations for alert in self.monitor.observe(observation)]
        self._take_snapshot(self.observations[-1].update + 1)
        return found

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

    def restart(self) -> None:
        """Forget what was observed, but for the alerts: the state of an earlier update was restored."""
        self._seen, self._pending, self._inspected = readings.attempts(self.optimizer._state), [], -1
        self.monitor.restart()

    def _follow(self) -> None:
        """Begin anew if the optimizer has other variables than before."""
        plan, rows, config = self.optimizer._plan(), self.optimizer._rows, self.optimizer.configuration
        if self._followed is not None and self._followed[0] is plan and self._followed[1] is config:
            return
        self._followed = plan, config
        self._kept = [i for i, v in enumerate(plan.variables) if not v.overwrite]
        self._scales = self._decay_scales()
        paths = tuple(rows[i].path for i in self._kept)
        if self.monitor.subject.paths == paths:
            return
        variables = self.optimizer._trainable_variables
        subject = Subject(
            paths=paths,
            shapes=tuple(tuple(variables[i].shape) for i in self._kept),
            baseline_loss=self.baseline_loss,
            adaptive=config.rule.family != "sgd",
            epsilon=getattr(config.rule.innermost, "epsilon", math.nan),
            loss_scaled=self.loss_scaled,
            fixed_clip=not config.clip.history_length,
        )
        self.monitor.restart(subject)
        self._inspected = -1

    def _observations(self, recent: RecentUpdates, losses: Sequence[float]) -> list[Observation]:
        skipped = recent.statistics["skipped"] == 1
        updates = int(backend.fetch(self.optimizer._iterations)) - np.cumsum(~skipped[::-1])[::-1]
        updates = np.maximum(updates, 0)
        oldest = recent.numbers[-1] - VARIABLE_HISTORY
        scales, decays = self._scales, self._scales != 0
        power = 2 if self.optimizer.weight_decay_mode == "corrected" else 1
        square, measured, count = self._micro_batches()
        names = ("learning_rate", "gradient_norm", "parameter_norm", "update_norm", "clip_threshold", "loss")
        found = []
        for j, number in enumerate(recent.numbers.tolist()):
            values: dict[str, Any] = {name: float(recent.statistics[name][j]) for name in names}
            if math.isnan(values["loss"]):
                values["loss"] = losses[j]
            norms: dict[str, Any] = {}
            if number > oldest:
                gradients, parameters, changes = (recent.variable_norms[name][j][self._kept] for name in _NORMS)
                norms["gradient_norms"] = gradients
                if not np.isnan(parameters).all():
                    norms |= {"parameter_norms": parameters, "update_norms": changes}
                    share = float(np.linalg.norm(scales[decays] * parameters[decays]))
                    norms["decay_norm"] = values["learning_rate"] ** power * share
            if number == measured and count > 1:
                norms |= {"micro_batches": int(count), "micro_square": float(square)}
            norms |= {name: bool(recent.statistics[name][j] == 1) for name in ("clipped", "skipped")}
            found.append(Observation(update=int(updates[j]), **values, **norms))
        return found

    def _micro_batches(self) -> tuple[float, float, float]:
        """Of the last update that measured its micro-batches: mean of their squared norms, its number, how many they
        were; `nan` if none did, and on replicas, where each knows its own only."""
        state = self.optimizer._state
        if not state.probes or not state.window or backend.replicas(self.optimizer) > 1:
            return math.nan, math.nan, math.nan
        _, square, number, count = backend.fetch(state.probes[-1]).tolist()
        return square, number, count

    def _decay_scales(self) -> np.ndarray:
        """What decay takes off each variable per unit of the rate, or in the mode "corrected" of its square; nan for
        an l2 penalty, which moves with the gradient."""
        plan, config = self.optimizer._plan(), self.optimizer.configuration
        decays = [part.hyperparameters.get("weight_decay", 0.0) for part in config.parts]
        relative = 1 / plan.peak
        factors = {"decoupled": 1.0, "independent": relative, "corrected": relative, "l2": math.nan}
        factor = factors[plan.weight_decay_mode]
        scales = [plan.variables[i].rate * decays[plan.variables[i].group] for i in self._kept]
        decaying = [plan.variables[i].decays for i in self._kept]
        return np.where(np.array(decaying, bool) & (np.array(scales) > 0), factor * np.array(scales), 0.0)

    def _probe(self, update: int) -> Probe:
        last_active, entries, (dot, square), _ = (backend.fetch(x) for x in self.optimizer._state.probes)
        plan, subject = self.optimizer._plan(), self.monitor.subject
        place = {i: k for k, i in enumerate(self._kept)}
        layers = [np.full(n, subject.layer_of[place[i]]) for i, n in zip(plan.watched, plan.unit_sizes, strict=True)]
        if self._inspected < 0 or update - self._inspected >= min(self._inspected + 1, INSPECTED):
            self._inspect(update)
        half = entries[self._kept] if plan.half_precision else np.zeros((0, 2))
        known = update >= 10  # before, the means of gradients have not filled
        return Probe(
            silent_updates=self._seen - last_active,
            unit_layers=np.concatenate(layers) if layers else np.zeros(0, np.int64),
            zero_fraction=half[:, 0],
            equal_columns=self._columns,
            below_epsilon=self._moments,
            half_precision=(half[:, 1] > 0).astype(float),
            small_entries=half[:, 1],
            gradient_dot=float(dot) if known else math.nan,
            gradient_square=float(square) if known else math.nan,
        )

    def _inspect(self, update: int) -> None:
        """Look at samples of the weights and of the second moments."""
        plan, rows, variables = self.optimizer._plan(), self.optimizer._rows, self.optimizer._trainable_variables
        self._inspected = update
        self._columns = np.array([inspection.equal_columns(variables[i]) for i in self._kept])
        shares = []
        for i in self._kept:
            rule: Any = plan.groups[plan.variables[i].group].rule.innermost
            seen = update + 1 - plan.variables[i].joined
            share = math.nan
            moment = rows[i].slots.get("v") if rule.family == "adam" else None
            if moment is not None and "float" in keras.backend.standardize_dtype(moment.dtype) and seen > 0:
                correction = 1 - rule.beta_2**seen if rule.correct_bias else 1.0
                share = inspection.below_epsilon(moment, correction, rule.epsilon)
            shares.append(share)
        self._moments = np.array(shares)

    def _take_snapshot(self, updates: int) -> None:
        if self.monitor.subject.sizes.sum() <= SNAPSHOT_LIMIT and self.monitor.wants_snapshot(updates):
            variables = [self.optimizer._trainable_variables[i] for i in self._kept]
            self.monitor.snapshot(updates, [backend.fetch(v) for v in variables])


_NORMS = ("gradient_norm", "parameter_norm", "update_norm")


def _several(loss: Any) -> bool:
    return isinstance(loss, (list, tuple)) or len(getattr(loss, "shape", ())) > 0


def _number(loss: Any) -> Loss:
    """A loss as a float; inf if it is not finite."""
    if loss is None:
        return None
    value = float(ops.convert_to_numpy(loss))
    return value if math.isfinite(value) else math.inf


def _spread(losses: Sequence[Loss], updates: int) -> list[float]:
    """The loss of each update, from those of the steps since: means where there were more steps, the last ones where
    there were fewer; nan where it is not known.

    >>> _spread([1.0, 3.0, 5.0, None], 2), _spread([2.0], 3)
    ([2.0, nan], [nan, nan, 2.0])
    """
    values = np.array([math.nan if x is None else x for x in losses], np.float64)
    if len(values) < updates:
        return [math.nan] * (updates - len(values)) + values.tolist()
    return [math.inf if np.isinf(part).any() else float(part.mean()) for part in np.array_split(values, updates)]

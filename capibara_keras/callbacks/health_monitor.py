"""Alerts while `fit` runs, and what to do about the critical ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from capibara_keras import errors
from capibara_keras.callbacks.attach import Attach
from capibara_keras.callbacks.baseline import baseline_loss
from capibara_keras.callbacks.batch_losses import BatchLosses
from capibara_keras.callbacks.json_lines import JsonLines
from capibara_keras.callbacks.reaction import REACTIONS, Reaction
from capibara_keras.monitoring import DEFAULT_RULES, Alert, HealthRule, Observation
from capibara_keras.monitoring.alerts import LEVELS
from capibara_keras.monitoring.monitor import KEPT
from capibara_keras.pipeline import STATISTICS_HISTORY
from capibara_keras.warning import warn
from capibara_keras.watch import Watch

__all__ = ["HealthMonitor"]


class HealthMonitor(Attach):
    """Watches training, and prints each problem once: what was seen, in which layer, and what to change.

    It reads what the optimizer measured every few batches and misses no update in between (of 256 at most, for a large
    `steps_per_execution`); what is wrong is dated to the update in which it happened. The metrics are in
    `optimizer.get_optimization_metrics()`.

    Args:
        on_critical: on an alert of level "critical": "warn" prints it; "stop" also ends training; "reduce_lr" lowers
            the learning rate; "rollback" restores weights and optimizer state of the last good copy, and goes on with
            the data that follows, so that the offending batches are skipped. After 3 reductions or rollbacks training
            stops.
        every: batches between two readings, at most 64. The norms of parameters and updates are measured as often.
        path: of a file to which a JSON line is appended for each update (the names of `StepRecord`, and `layers`), and
            {"alert": {...}} for each alert, hints included.
        level: the lowest level that is printed: "info", "warning" or "critical".
        rules: what to look for; rules of one's own can be added to `DEFAULT_RULES`.
        baseline_loss: of a model that knows nothing, such as the variance of the targets; by default ln C for the
            cross-entropy over C classes, and unknown for other losses. Rules that need it say nothing without.
        reduce_factor: what "reduce_lr" multiplies the rate by.
        keep_every: updates between two copies for "rollback". There are two, in the host's memory.
        print_fn: takes each message; by default they are printed below the progress bar.

    Raises:
        ConfigError: a bad argument, or a `path` that cannot be written.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="head")])
    >>> model.compile(ck.Adam(), "mse")
    >>> x, y = np.ones((64, 1)), np.ones((64, 1))
    >>> y[40] = np.nan
    >>> monitor = ck.HealthMonitor(print_fn=lambda text: print(text[:53]))
    >>> _ = model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor])
    critical at update 10: the loss is NaN or infinite. L
    >>> [(alert.id, alert.step) for alert in monitor.alerts]
    [('nonfinite_loss', 10)]
    """

    def __init__(
        self,
        on_critical: str = "warn",
        every: int = 10,
        path: str | Path | None = None,
        *,
        level: str = "warning",
        rules: Iterable[HealthRule] = DEFAULT_RULES,
        baseline_loss: float | None = None,
        reduce_factor: float = 0.1,
        keep_every: int = 100,
        print_fn: Callable[[str], Any] | None = None,
    ) -> None:
        super().__init__()
        self.on_critical = errors.choice("on_critical", on_critical, ("warn", *REACTIONS))
        self.every = errors.integer("every", every, 1, 64)
        self.path, self.rules, self.print_fn = path, tuple(rules), print_fn
        self.level = errors.choice("level", level, LEVELS)
        self.baseline_loss = None if baseline_loss is None else errors.number("baseline_loss", baseline_loss)
        self.reduce_factor = errors.number("reduce_factor", reduce_factor, 0, 1, open_low=True, open_high=True)
        self.keep_every = errors.integer("keep_every", keep_every, 1)
        self.watch: Watch | None = None
        self.alerts: list[Alert] = []
        """The last 1000 alerts, hints included; `raised` is how many there have been."""
        self.raised = 0
        self._losses, self._last = BatchLosses(), 0
        self._file: JsonLines | None = None
        self._is_unbuilt = False
        self._reaction: Reaction | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Have the optimizer measure, and open the file."""
        optimizer = self.optimizer
        if not optimizer.built and self.model.trainable_variables:
            optimizer.build(self.model.trainable_variables)
        if self.watch is None or self.watch.optimizer is not optimizer:
            baseline = baseline_loss(self.model) if self.baseline_loss is None else self.baseline_loss
            wrapped = self.model.optimizer is not optimizer
            self.watch = Watch(
                optimizer, baseline_loss=baseline, rules=self.rules, every=self.every, loss_scaled=wrapped
            )
            if optimizer.built:
                self.watch.restart()  # what an earlier `fit` did was for its own monitor to say
        elif self.watch.is_ahead():
            self.watch.restart()
        self._is_unbuilt = not (optimizer.built and self.model.built)  # on TensorFlow, the first batch builds it then
        optimizer._set(_watch=self.watch)
        super().on_train_begin(logs)
        updates = self.model.steps_per_execution // (optimizer.gradient_accumulation_steps or 1)
        if updates > STATISTICS_HISTORY:
            warn(
                f"HealthMonitor: with steps_per_execution={self.model.steps_per_execution} it sees the last "
                f"{STATISTICS_HISTORY} of {updates} updates at a time; what happens in the others is missed"
            )
        if self._file is not None:  # the last `fit` ended with an error
            self._file.close()
        self._file = None if self.path is None else JsonLines(self.path)
        self._losses, self._reaction = BatchLosses(), None
        if self.on_critical != "warn":
            self._reaction = REACTIONS[self.on_critical](
                self.model, optimizer, self.watch, self._say, self.reduce_factor, self.keep_every
            )
            if optimizer.built:
                self._reaction.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """The logged mean begins anew, and so may the data."""
        super().on_epoch_begin(epoch, logs)
        self._losses.begin()
        if self.watch is not None:
            self.watch.begin_epoch()
        self._last = 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Read every so many batches. Here and not at the batch's end, when the next one may have begun."""
        super().on_train_batch_begin(batch, logs)
        if batch and self._is_unbuilt:
            self._after_the_first_batch()
        if batch - self._last >= self.every:
            self._last = batch
            if self.watch is None or not self.watch.knows_loss:
                self._losses.wait(batch)
            self._read()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the loss, for where the optimizer does not know it."""
        if logs and "loss" in logs:
            self._losses.seen(batch, float(logs["loss"]))
        else:
            self._losses.passed(batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Read the rest of the epoch, and the validation loss."""
        super().on_epoch_end(epoch, logs)
        self._read()
        if self.watch is not None and logs and math.isfinite(logs.get("val_loss", math.nan)):
            self._handle(self.watch.validate(logs["val_loss"]))

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Close the file."""
        super().on_train_end(logs)
        self._reaction = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def _after_the_first_batch(self) -> None:
        """Of a model that `fit` has built just now: what was not to be had when it began."""
        self._is_unbuilt = False
        if self.watch is not None and self.baseline_loss is None:
            self.watch.baseline_loss = baseline_loss(self.model) or math.nan
        if self._reaction is not None:
            self._reaction.begin()

    def _read(self) -> None:
        assert self.watch is not None
        self.synchronise()
        found = self.watch.update(self._losses.take())
        if self._file is not None:
            rows = zip(self.watch.observations, self.watch.penalties, strict=True)
            self._file.write(self._record(x, penalty) for x, penalty in rows)
        self._handle(found)
        if self._reaction is not None:
            self._reaction.after_reading()

    def _record(self, x: Observation, penalty: float) -> dict[str, Any]:
        """A line of the file."""
        assert self.watch is not None
        subject = self.watch.monitor.subject
        names = ("update", "learning_rate", "gradient_norm", "parameter_norm", "update_norm", "clip_threshold")
        values = {name: getattr(x, name) for name in (*names, "clipped", "skipped", "loss")}
        norms = {"gradient_norm": x.gradient_norms, "parameter_norm": x.parameter_norms, "update_norm": x.update_norms}
        columns = {name: subject.by_layer(norm).tolist() for name, norm in norms.items() if len(norm)}
        layers = {
            layer: {name: column[i] for name, column in columns.items()} for i, layer in enumerate(subject.layers)
        }
        return values | {"weight_decay_loss": penalty, "layers": layers if columns else {}}

    def _handle(self, alerts: list[Alert]) -> None:
        """Print, write, act."""
        self.alerts = [*self.alerts, *alerts][-KEPT:] if alerts else self.alerts
        self.raised += len(alerts)
        if self._file is not None:
            self._file.write({"alert": dict(alert)} for alert in alerts)
        for alert in alerts:
            if LEVELS.index(alert.level) >= LEVELS.index(self.level):
                self._say(str(alert))
        critical = [alert for alert in alerts if alert.level == "critical"]
        if critical and self._reaction is not None and not self.model.stop_training:
            self._reaction.act(critical[0])

    def _say(self, text: str) -> None:
        """Below the progress bar, which Keras draws anew on the next line."""
        if self.print_fn is not None:
            self.print_fn(text)
        else:
            print(f"\n{text}" if self.params.get("verbose") == 1 else text, flush=True)

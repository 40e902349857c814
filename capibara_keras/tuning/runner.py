"""Runs trials on one compiled model: the same start for each, and no new trace where only numbers change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from capibara_keras import config
from capibara_keras.callbacks import Attach
from capibara_keras.config import OptimizerConfig
from capibara_keras.core import structure
from capibara_keras.optimizer import Optimizer
from capibara_keras.rate import peak_of, rate_of
from capibara_keras.tuning.budget import Budget
from capibara_keras.tuning.combining import combined
from capibara_keras.tuning.configurations import complete
from capibara_keras.tuning.data import Validation
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.metric import Metric
from capibara_keras.tuning.models import scope_of
from capibara_keras.tuning.rates import RateTable, rate_table
from capibara_keras.types import Variable

__all__ = ["Runner", "Task"]

Report: TypeAlias = Callable[[int, dict[str, float]], bool]
"""(step, metrics) -> whether the trial goes on."""

COMPILED = 4
"""Train functions that are kept; with each its optimizer's state."""


@dataclass(frozen=True)
class Task:
    """What every trial of a search does.

    Args:
        training: returns the training data of a trial.
        validation: what it is evaluated on.
        budget: how long it is.
        patience: batches without a better metric after which it ends; `None` for no such end.
        metric: what is better.
    """

    training: Callable[[], Any]
    validation: Validation
    budget: Budget
    patience: int | None
    metric: Metric


@dataclass
class _Compiled:
    """A model's train function with the optimizer that is in it."""

    optimizer: Any
    inner: Optimizer
    rates: Variable
    start: list[np.ndarray]
    train_function: Any = None


class Runner:
    """A model on which trials are run, one after another.

    Args:
        model: compiled and built. It is given back as it was by `release`.
        task: what every trial does.
        base: options of every configuration.
    """

    def __init__(self, model: keras.Model, task: Task, base: Values) -> None:
        self.model, self.task, self.base = model, task, dict(base)
        self.start = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
        self.found = (model.optimizer, model.train_function)
        self.compiled: dict[Hashable, _Compiled] = {}

    def run(self, values: Values, report: Report, worth: Callable[[float], bool]) -> list[np.ndarray] | None:
        """Train with a configuration.

        Args:
            values: options beside the base.
            report: called with step and metrics after each evaluation; whether to go on.
            worth: whether weights with this loss, the metric to be minimised, shall be kept.

        Returns:
            The best weights, `None` if none was worth it.
        """
        budget = self.task.budget
        compiled = self._prepared(complete(combined(self.base, values), budget.steps))
        watch = _Watch(self.task, report, worth)
        self.model.fit(
            self.task.training(),
            steps_per_epoch=budget.interval,
            epochs=budget.evaluations,
            shuffle=False,
            verbose=0,
            callbacks=[watch],
            **self.task.validation.fit_options,
        )
        compiled.train_function = self.model.train_function
        return watch.weights

    def release(self) -> None:
        """Give the model back with the weights, the optimizer and the train function that it came with."""
        self._restart()
        self.model.optimizer, self.model.train_function = self.found
        self.compiled.clear()

    def save(self, weights: list[np.ndarray], path: Path) -> None:
        """Write weights, without optimizer, as Keras does."""
        self.model.set_weights(weights)
        optimizer, self.model.optimizer = self.model.optimizer, None
        try:
            self.model.save_weights(path)
        finally:
            self.model.optimizer = optimizer

    def _restart(self) -> None:
        """Put the model's variables back, random numbers of its layers included."""
        for variable, value in zip(self.model.variables, self.start, strict=False):
            variable.assign(value)

    def _prepared(self, options: Values) -> _Compiled:
        """The model as it was at first, with an optimizer for `options` that has seen nothing."""
        wanted = config.parse(options)
        rates = rate_table(wanted, self.task.budget.steps)
        wanted = _without_rate(wanted, self.task.budget.steps)
        key = repr(structure(wanted))
        self._restart()
        if key not in self.compiled:
            while len(self.compiled) >= COMPILED:
                del self.compiled[next(iter(self.compiled))]
            self.compiled[key] = self._compile(wanted)
        compiled = self.compiled[key] = self.compiled.pop(key)  # last used last
        self.model.optimizer, self.model.train_function = compiled.optimizer, compiled.train_function
        for variable, value in zip(compiled.optimizer.variables, compiled.start, strict=True):
            variable.assign(np.broadcast_to(value, variable.shape))
        numbers = {k: v for k, v in wanted.to_options().items() if k not in ("algorithm", "learning_rate")}
        compiled.inner.reconfigure(numbers)
        compiled.rates.assign(rates)
        return compiled

    def _compile(self, wanted: OptimizerConfig) -> _Compiled:
        """An optimizer that is built on the model."""
        with scope_of(self.model):
            inner = Optimizer(**wanted.to_options())
            rates = inner.add_variable((self.task.budget.steps,), "zeros", dtype="float32", name="rates")
            inner.learning_rate = RateTable(rates)
            wrapped = isinstance(self.found[0], keras.optimizers.LossScaleOptimizer)
            optimizer = keras.optimizers.LossScaleOptimizer(inner) if wrapped else inner
            inner.attach(model=self.model)
            optimizer.build(self.model.trainable_variables)
        return _Compiled(optimizer, inner, rates, [_compact(ops.convert_to_numpy(v)) for v in optimizer.variables])


class _Watch(Attach):
    """Reports a trial, and ends it."""

    def __init__(self, task: Task, report: Report, worth: Callable[[float], bool]) -> None:
        super().__init__()
        self.task, self.report, self.worth = task, report, worth
        self.best, self.best_step = math.inf, 0
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """An evaluation."""
        super().on_epoch_end(epoch, logs)
        step = (epoch + 1) * self.task.budget.interval
        logs = {name: float(value) for name, value in (logs or {}).items()}
        loss = self.task.metric.loss(logs[self.task.metric.name])
        if loss < self.best:
            self.best, self.best_step = loss, step
            if self.worth(loss):
                self.weights = [np.array(w) for w in self.model.get_weights()]
        patience = self.task.patience
        if not self.report(step, logs) or (patience is not None and step - self.best_step >= patience):
            self.model.stop_training = True


def _without_rate(settings: OptimizerConfig, steps: int) -> OptimizerConfig:
    """The same with a rate that comes from a `RateTable`, whose peak is 1: decays that are relative to the peak of the
    schedule are divided by it."""
    plain = dataclasses.replace(settings, schedule=None, use_scheduler=False, learning_rate=1.0)
    if settings.weight_decay_mode not in ("independent", "corrected"):
        return plain
    rate = rate_of(settings, max(1, steps // settings.accumulation_steps))
    peak = (rate if isinstance(rate, float) else peak_of(rate)) or 1.0

    def relative(decay: float | None) -> float | None:
        return None if decay is None else decay / peak

    groups = tuple(dataclasses.replace(group, weight_decay=relative(group.weight_decay)) for group in settings.groups)
    return dataclasses.replace(plain, weight_decay=relative(settings.weight_decay), groups=groups)


def _compact(value: np.ndarray) -> np.ndarray:
    """One number for an array that is all the same."""
    value = np.array(value)
    same = value.size > 1 and np.array_equal(value, np.full_like(value, value.flat[0]), equal_nan=True)
    return value.flat[0] if same else value

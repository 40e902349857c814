"""Runs trials on one compiled model: the same start for each, and no new trace where only numbers change."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from capibara_keras import config
from capibara_keras.callbacks import Attach
from capibara_keras.callbacks.attach import optimizers_of
from capibara_keras.config import OptimizerConfig
from capibara_keras.core import structure
from capibara_keras.errors import ConfigError
from capibara_keras.optimizer import Optimizer
from capibara_keras.rate import Pending, peak_of, rate_of
from capibara_keras.tuning.domains import Values
from capibara_keras.types import Variable

__all__ = ["Budget", "Runner", "base_options", "complete", "warmup_steps"]

Report: TypeAlias = Callable[[int, dict[str, float]], bool]

COMPILED = 4
"""Train functions that are kept; with each its optimizer's state."""


@dataclass(frozen=True)
class Budget:
    """How long a trial is.

    Args:
        interval: batches between two evaluations.
        evaluations: at most so many.

    >>> Budget.of(5000)
    Budget(interval=250, evaluations=20)
    """

    interval: int
    evaluations: int

    @property
    def steps(self) -> int:
        """Batches in all."""
        return self.interval * self.evaluations

    @classmethod
    def of(cls, steps: int, interval: int | None = None) -> Budget:
        """The budget that uses most of `steps`, with about 16 evaluations unless `interval` says otherwise."""
        if interval is not None:
            return cls(interval, steps // interval)
        counts = range(min(8, steps), min(32, steps) + 1)
        evaluations = max(counts, key=lambda n: (steps // n * n, -abs(n - 16)))
        return cls(steps // evaluations, evaluations)


class RateTable(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of each update of a trial, in a variable: any schedule without a new trace."""

    peak = 1.0

    def __init__(self, rates: Variable) -> None:
        self.rates = rates

    def __call__(self, step: Any) -> Any:
        last = self.rates.shape[0] - 1
        return ops.take(self.rates, ops.minimum(ops.cast(step, "int32"), last))

    def get_config(self) -> dict[str, Any]:
        return {"rates": ops.convert_to_numpy(self.rates).tolist()}


@dataclass
class _Compiled:
    """A model's train function with the optimizer that is in it."""

    optimizer: Any
    inner: Optimizer
    rates: Variable
    start: list[np.ndarray]
    train_function: Any = None


class Runner:
    """A model, its data and a budget.

    Args:
        model: compiled. It is given back as it was by `release`.
        data: returns the training data of a trial.
        validation: as `fit` takes it.
        fit_options: more arguments of `fit`.
        budget: of a trial.
        base: options of every trial.
        patience: steps without a better metric after which a trial ends.
        maximize: whether larger values of the metric are better.
        metric: name in `fit`'s logs.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        data: Callable[[], Any],
        validation: Any,
        fit_options: Mapping[str, Any],
        budget: Budget,
        base: Values,
        patience: int | None,
        maximize: bool,
        metric: str,
    ) -> None:
        self.model, self.data, self.validation, self.fit_options = model, data, validation, dict(fit_options)
        self.budget, self.base, self.patience = budget, dict(base), patience
        self.maximize, self.metric = maximize, metric
        self.names = reported(model, validation, self.fit_options)
        self.start = [np.array(ops.convert_to_numpy(v)) for v in model.variables]
        self.found = (model.optimizer, model.train_function)
        self.compiled: dict[Hashable, _Compiled] = {}

    def run(
        self, values: Values, report: Callable[[int, dict[str, float]], bool], worth: Callable[[float], bool]
    ) -> Any:
        """Train with a configuration.

        Args:
            values: options beside the base.
            report: called with step and metrics after each evaluation; whether to go on.
            worth: whether weights with this metric shall be kept.

        Returns:
            The best weights, `None` if none was worth it.
        """
        compiled = self._prepared(complete(self.base | values, self.budget.steps))
        watch = _Watch(self, report, worth)
        self.model.fit(
            self.data(),
            steps_per_epoch=self.budget.interval,
            epochs=self.budget.evaluations,
            validation_data=self.validation,
            shuffle=False,
            verbose=0,
            callbacks=[watch],
            **self.fit_options,
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
        rates = rate_table(wanted, self.budget.steps)
        if wanted.weight_decay_mode == "independent" and wanted.weight_decay is not None:
            rate = rate_of(wanted, self.budget.steps)  # the table's own peak is 1
            peak = rate if isinstance(rate, float) else peak_of(rate)
            wanted = dataclasses.replace(wanted, weight_decay=wanted.weight_decay / (peak or 1.0))
        wanted = dataclasses.replace(wanted, schedule=None, use_scheduler=False, learning_rate=1.0)
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
        compiled.rates.assign(rates[: compiled.rates.shape[0]])
        return compiled

    def _compile(self, wanted: OptimizerConfig) -> _Compiled:
        """An optimizer that is built on the model."""
        with scope_of(self.model):
            inner = Optimizer(**wanted.to_options())
            rates = inner.add_variable((self.budget.steps,), "zeros", dtype="float32", name="rates")
            inner.learning_rate = RateTable(rates)
            wrapped = isinstance(self.found[0], keras.optimizers.LossScaleOptimizer)
            optimizer = keras.optimizers.LossScaleOptimizer(inner) if wrapped else inner
            inner.attach(model=self.model)
            optimizer.build(self.model.trainable_variables)
        return _Compiled(optimizer, inner, rates, [_compact(ops.convert_to_numpy(v)) for v in optimizer.variables])


class _Watch(Attach):
    """Reports a trial, and ends it."""

    def __init__(self, runner: Runner, report: Report, worth: Callable[[float], bool]) -> None:
        super().__init__()
        self.runner, self.report, self.worth = runner, report, worth
        self.best, self.best_step = math.inf, 0
        self.weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """An evaluation."""
        super().on_epoch_end(epoch, logs)
        step = (epoch + 1) * self.runner.budget.interval
        logs = {name: float(value) for name, value in (logs or {}).items()}
        value = logs[self.runner.metric]
        loss = -value if self.runner.maximize else value
        if loss < self.best:
            self.best, self.best_step = loss, step
            if self.worth(loss):
                self.weights = [np.array(w) for w in self.model.get_weights()]
        patience = self.runner.patience
        go_on = self.report(step, logs)
        if not go_on or (patience is not None and step - self.best_step >= patience):
            self.model.stop_training = True


def base_options(model: Any) -> Values:
    """The options of the model's optimizer where they are not defaults, if it is one of this package; else those of
    `Optimizer()`: Adam."""
    found = list(optimizers_of(getattr(model, "optimizer", None)))
    if len(found) != 1:
        return {"algorithm": "adam"}
    given = found[0].configuration.to_options()
    defaults = config.parse({"algorithm": given["algorithm"]}).to_options()
    return {k: v for k, v in given.items() if k == "algorithm" or k not in defaults or v != defaults[k]}


def complete(options: Values, steps: int) -> Values:
    """The options as they are measured: with the schedule's name, and the total that it takes from the budget."""
    settings = config.parse(options)
    result: Values = {"algorithm": settings.algorithm} | options
    if settings.schedule is not None and settings.use_scheduler:
        result.setdefault("scheduler_type", settings.schedule.shape)
        if "total_steps" in settings.schedule.missing():
            result["max_steps"] = max(1, steps // settings.accumulation_steps)
    return result


def rate_table(settings: OptimizerConfig, steps: int) -> np.ndarray:
    """The rate of each update of a trial of so many batches."""
    updates = max(1, steps // settings.accumulation_steps)
    rate = rate_of(settings, updates)
    table = np.zeros(steps)
    if isinstance(rate, Pending):
        rate(0)  # raises, and says what is missing
    if isinstance(rate, float):
        table[:] = rate
    elif isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        vectorised = type(rate).__module__.startswith("capibara_keras")
        indices = np.arange(updates)
        values = ops.convert_to_numpy(rate(indices)) if vectorised else [float(rate(int(i))) for i in indices]
        table[:updates] = values
        table[updates:] = table[updates - 1]
    else:
        raise ConfigError(f"learning_rate: the tuner needs a number or a schedule, received {rate!r}")
    return table


def warmup_steps(options: Values, steps: int) -> int:
    """Batches until the rate of a configuration is up."""
    settings = config.parse(options)
    if settings.schedule is None or not settings.use_scheduler:
        return 0
    given, each = settings.schedule.to_options(), settings.accumulation_steps
    ratio = given.get("warmup_ratio", 0.0)
    return int(given.get("warmup_steps", 0) * each + math.ceil(ratio * steps))


def reported(model: keras.Model, validation: Any, fit_options: Mapping[str, Any]) -> list[str]:
    """Names of the metrics in `fit`'s logs; builds a model that is not."""
    given: dict[str, Any] = {"x": validation}
    if isinstance(validation, tuple):
        given = dict(zip(("x", "y", "sample_weight"), validation, strict=False))
    if "batch_size" in fit_options or not hasattr(validation, "__len__"):
        given |= {k: v for k, v in (("batch_size", fit_options.get("validation_batch_size")),) if v}
    names = list(model.evaluate(**given, steps=1, verbose=0, return_dict=True))
    return [*names, *(f"val_{name}" for name in names)]


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """The `tf.distribute` strategy that the model was made under."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()


def _compact(value: np.ndarray) -> np.ndarray:
    """One number for an array that is all the same."""
    value = np.array(value)
    same = value.size > 1 and np.array_equal(value, np.full_like(value, value.flat[0]), equal_nan=True)
    return value.flat[0] if same else value

"""`OptimizerAutoTuner`: finds the options of an optimizer for a model and its data."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras

from capibara_keras import config, errors
from capibara_keras.errors import ConfigError, TuningError
from capibara_keras.tuning import progress
from capibara_keras.tuning.algorithms import ALGORITHMS, smallest_grid
from capibara_keras.tuning.budget import Budget
from capibara_keras.tuning.combining import combined
from capibara_keras.tuning.configurations import any_algorithm, base_options, complete, named_algorithm, warmup_steps
from capibara_keras.tuning.data import training, validation
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.halving import EARLY_TERMINATION, Halving, Rungs
from capibara_keras.tuning.identity import identity, known_trials
from capibara_keras.tuning.metric import metric_name, metric_of
from capibara_keras.tuning.models import distributed, made
from capibara_keras.tuning.rates import check_rate
from capibara_keras.tuning.results import Results
from capibara_keras.tuning.runner import Runner, Task
from capibara_keras.tuning.search_space import SearchSpace
from capibara_keras.tuning.state import Project
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["OptimizerAutoTuner"]


class OptimizerAutoTuner(Results):
    """Searches the options of an optimizer: each trial trains the same model from the same start.

    Args:
        search_space: option of `Optimizer` -> `[low, high, "log"]`, `[low, high, "uniform"]`, `[low, high, "int"]`,
            `[value, …, "choice"]`, `"bool"`, or a fixed value; see `SearchSpace.parse`.
        optimization_metric: a name in `fit`'s logs; "validation_loss" is "val_loss".
        search_algorithm: "bayesian_optimization" (a Gaussian process), "random", "grid", "hyperband",
            "keras_tuner_bayesian", or "optuna" where that is installed.
        max_trials: how many configurations are tried. A search that has ended goes on if this is raised.
        direction: "min" or "max"; known for losses and Keras' metrics.
        early_termination: "successive_halving", "hyperband", "none", or a `Halving`. Default: "hyperband" for that
            algorithm, else "successive_halving".
        seed: of the proposals and of the order of arrays.
        directory: where the search is kept. One that was interrupted, at whatever moment, goes on from there.
        overwrite: remove the search that is there.
        lease: with workers, seconds without a sign of life after which a trial is given to another one.
        verbose: 0 prints nothing, 1 a line for each trial.

    Raises:
        ConfigError: a bad argument; the message names it.

    >>> import capibara_keras as ck, keras, numpy as np, tempfile
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> tuner = ck.OptimizerAutoTuner({"learning_rate": [1e-4, 1.0, "log"]}, max_trials=3, verbose=0,
    ...                               directory=tempfile.mkdtemp())
    >>> config = tuner.find_optimal_hyperparameters(model, (x, x[:, :1]), (x, x[:, :1]), max_steps_per_trial=16)
    >>> sorted(config), len(tuner.trials)
    (['algorithm', 'learning_rate'], 3)
    >>> optimizer = ck.Optimizer.from_config(config)
    """

    def __init__(
        self,
        search_space: Mapping[str, Any],
        optimization_metric: str = "validation_loss",
        search_algorithm: str = "bayesian_optimization",
        max_trials: int = 50,
        *,
        direction: str | None = None,
        early_termination: str | Halving | None = None,
        seed: int = 0,
        directory: str | os.PathLike[str] = "optimizer_tuning",
        overwrite: bool = False,
        lease: float = 60.0,
        verbose: int = 1,
    ) -> None:
        super().__init__(Project(directory), metric_name(optimization_metric))
        self.algorithm = errors.choice("search_algorithm", search_algorithm, ALGORITHMS)
        self.max_trials = errors.integer("max_trials", max_trials, 1)
        self.seed = errors.integer("seed", seed, 0)
        self.lease = errors.number("lease", lease, 0, open_low=True)
        self.direction = None if direction is None else errors.choice("direction", direction, ("min", "max"))
        self.halving = _halving(early_termination, self.algorithm)
        self.verbose = errors.integer("verbose", verbose, 0, 2)
        self.overwrite = errors.boolean("overwrite", overwrite)
        parsed = SearchSpace.parse(search_space, any_algorithm(search_space))
        self.search_space = dict(search_space)
        if self.algorithm == "grid" and smallest_grid(parsed) > self.max_trials:
            raise ConfigError(
                f"max_trials: the smallest grid, with two values per range, has {smallest_grid(parsed)} points, "
                f"received max_trials={self.max_trials}"
            )

    def find_optimal_hyperparameters(
        self,
        model: keras.Model | Callable[[], keras.Model],
        train_dataset: Any,
        val_dataset: Any,
        max_steps_per_trial: int,
        early_stopping_patience: int | None = None,
        *,
        batch_size: int = 32,
        validation_steps: int | None = None,
        validation_interval: int | None = None,
        loss: Any = None,
        metrics: Any = None,
        distribution_strategy: Any = None,
        rebuild_model: bool = False,
    ) -> Values:
        """Run the trials that are left, and return the best configuration.

        A trial is `max_steps_per_trial` batches at most, evaluated about 16 times. What the search space does not
        name is taken from the model's optimizer, if it is one of this package. The model is given back as it came.

        Args:
            model: compiled, or with `loss` given; or a function without arguments that returns it.
            train_dataset, val_dataset: arrays `(x, y)`, a `tf.data.Dataset`, a `PyDataset`, an iterable of batches;
                or a function that returns one, or a generator.
            max_steps_per_trial: batches, so that all trials cost the same; with accumulation an update is several.
            early_stopping_patience: batches without a better metric after which a trial ends.
            batch_size: of arrays.
            validation_steps: batches of an evaluation; default: all.
            validation_interval: batches between two evaluations.
            loss, metrics: as in `compile`, for a model that is not compiled.
            distribution_strategy: a `tf.distribute` strategy, or a `keras.distribution` object; the model is then a
                function.
            rebuild_model: call the function for every trial.

        Returns:
            A dictionary for `Optimizer.from_config`: algorithm, searched options, schedule, and what the model's
            optimizer had beside. `trials` has the details, `load_best_weights` the model that was measured.

        Raises:
            ConfigError: a bad argument, a metric that the model does not report, or a directory with another search.
            TuningError: no trial completed, or the first ones all failed.
        """
        budget = Budget.of(
            errors.integer("max_steps_per_trial", max_steps_per_trial, 1),
            _optional("validation_interval", validation_interval, max_steps_per_trial),
        )
        patience = _optional("early_stopping_patience", early_stopping_patience)
        batch_size = errors.integer("batch_size", batch_size, 1)
        rebuild_model = errors.boolean("rebuild_model", rebuild_model)
        held_out = validation(val_dataset, _optional("validation_steps", validation_steps), batch_size)
        data = training(train_dataset, batch_size, budget.steps, self.seed)

        def runner() -> Runner:
            ready = made(model, loss, metrics, self.seed if rebuild_model else None)
            metric = metric_of(self.metric, self.direction, list(held_out.one_batch(ready)))
            task = Task(data, held_out, budget, patience, metric)
            return Runner(ready, task, combined(base_options(ready), named_algorithm(self.search_space)))

        with distributed(model, distribution_strategy), contextlib.ExitStack() as stack:
            first = runner()
            stack.callback(first.release)
            return self._search_with(first, runner if rebuild_model else lambda: first)

    def _search_with(self, first: Runner, runner: Callable[[], Runner]) -> Values:
        """Run the trials that the directory does not have yet, on what `runner` returns."""
        from capibara_keras.tuning.loop import Loop, is_chief, is_worker  # they bring keras-tuner
        from capibara_keras.tuning.oracle import Oracle

        task, base, steps = first.task, first.base, first.task.budget.steps
        space = SearchSpace.parse(self.search_space, base).within(steps, base)
        check_rate(config.parse(combined(base, space.values([0.0] * len(space.dimensions)))).learning_rate)
        search = Search(space, [], task.metric.maximize, self.max_trials, self.seed)
        same = identity(search, self.algorithm, self.halving, task, base, first.model)
        with contextlib.nullcontext() if is_worker() else self.project.locked():
            if self.overwrite and not is_worker():
                self.project.clear()
                self.overwrite = False  # the next call goes on with this search
            self._search = dataclasses.replace(search, trials=known_trials(self.project, same))
            oracle = Oracle(
                self._search,
                self.algorithm,
                task.metric,
                Rungs(self.halving, steps),
                lambda values: warmup_steps(combined(base, values), steps),
                self.project,
                same,
                lease=self.lease if is_chief() or is_worker() else None,
                on_end=lambda record, now: self._ended(record, now, steps),
            )
            Loop(oracle, runner, self.project).search()
            trials = known_trials(self.project, same) if is_worker() else oracle.current().trials
            self._search = dataclasses.replace(search, trials=trials)
        return complete(combined(base, self._completed().options), steps)

    def _ended(self, record: TrialRecord, search: Search, steps: int) -> None:
        self._search, best = search, search.best()
        self.project.keep_only([t.number for t in search.trials if not t.done] + ([best.number] if best else []))
        if self.verbose:
            print(progress.line(record, search, self.metric, steps), flush=True)

    def _completed(self) -> TrialRecord:
        """The best trial, if one was measured in full."""
        best = self.best
        if best is not None and best.status == "completed":
            return best
        counts = {s: sum(t.status == s for t in self.trials) for s in ("diverged", "failed", "pruned")}
        messages = [t.message.strip().splitlines()[-1] for t in self.trials if t.message.strip()]
        raise TuningError(
            "no trial completed: "
            + ", ".join(f"{n} {status}" for status, n in counts.items())
            + (f"; the last error was {messages[-1]}" if messages else "")
            + ". Try lower learning rates, or raise max_trials"
        )


def _halving(given: str | Halving | None, algorithm: str) -> Halving | None:
    if isinstance(given, Halving):
        return given
    default = "hyperband" if algorithm == "hyperband" else "successive_halving"
    return EARLY_TERMINATION[errors.choice("early_termination", given or default, EARLY_TERMINATION)]


def _optional(name: str, value: Any, high: int | None = None) -> int | None:
    return None if value is None else errors.integer(name, value, 1, high)

"""`OptimizerAutoTuner`: finds the options of an optimizer for a model and its data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.errors import ConfigError, TuningError
from capibara_keras.tuning import hparams, progress, report
from capibara_keras.tuning.algorithms import ALGORITHMS, smallest_grid
from capibara_keras.tuning.data import training, validation
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.halving import EARLY_TERMINATION, Halving, Rungs
from capibara_keras.tuning.runner import Budget, Runner, base_options, complete, warmup_steps
from capibara_keras.tuning.search_space import SearchSpace
from capibara_keras.tuning.state import Project
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["OptimizerAutoTuner"]

_METRICS = {"validation_loss": "val_loss", "training_loss": "loss", "train_loss": "loss"}
"""Other names of metrics; `validation_x` is `val_x` for every x."""


class OptimizerAutoTuner:
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
        self.algorithm = errors.choice("search_algorithm", search_algorithm, ALGORITHMS)
        self.max_trials = errors.integer("max_trials", max_trials, 1)
        self.seed = errors.integer("seed", seed, 0)
        self.lease = errors.number("lease", lease, 0, open_low=True)
        self.metric = metric_name(optimization_metric)
        self.direction = None if direction is None else errors.choice("direction", direction, ("min", "max"))
        self.halving = _halving(early_termination, self.algorithm)
        self.verbose, self.overwrite = errors.integer("verbose", verbose, 0, 2), overwrite
        self.project = Project(directory)
        self.search_space = dict(search_space) if isinstance(search_space, Mapping) else search_space
        parsed = SearchSpace.parse(search_space, None if "algorithm" in search_space else _any_algorithm(search_space))
        if self.algorithm == "grid" and smallest_grid(parsed) > self.max_trials:
            raise ConfigError(
                f"max_trials: the smallest grid, with two values per range, has {smallest_grid(parsed)} points, "
                f"received max_trials={self.max_trials}"
            )
        self._search: Search | None = None
        self._base: Values = {}
        self.budget: Budget | None = None

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
            None
            if validation_interval is None
            else errors.integer("validation_interval", validation_interval, 1, max_steps_per_trial),
        )
        patience = early_stopping_patience
        patience = None if patience is None else errors.integer("early_stopping_patience", patience, 1)
        fit_options: dict[str, Any] = {"validation_steps": validation_steps}
        arrays = validation(val_dataset, validation_steps)
        if not isinstance(arrays, keras.utils.PyDataset) and not hasattr(arrays, "element_spec"):
            fit_options["validation_batch_size"] = errors.integer("batch_size", batch_size, 1)
        data = training(train_dataset, batch_size, budget.steps, self.seed)

        def runner() -> Runner:
            made = _made(model, loss, metrics, self.seed if rebuild_model else None)
            return Runner(
                made,
                data=data,
                validation=arrays,
                fit_options=fit_options,
                budget=budget,
                base=base_options(made) | _named_algorithm(self.search_space),
                patience=patience,
                maximize=self.direction == "max",
                metric=self.metric,
            )

        with _distributed(model, distribution_strategy), contextlib.ExitStack() as stack:
            first = runner()
            stack.callback(first.release)
            self._check_metric(first.names)
            first.maximize = self.direction == "max"
            return self._searched(first, runner if rebuild_model else lambda: first, budget, patience)

    def _searched(self, first: Runner, runner: Callable[[], Runner], budget: Budget, patience: int | None) -> Values:
        from capibara_keras.tuning.loop import Loop, is_chief, is_worker
        from capibara_keras.tuning.oracle import Oracle

        self.budget, self._base = budget, first.base
        space = _within(SearchSpace.parse(self.search_space, first.base), first.base, budget.steps)
        fingerprint = self._fingerprint(space, patience)
        search = Search(space, [], self.direction == "max", self.max_trials, self.seed)
        with contextlib.nullcontext() if is_worker() else self.project.locked():
            if self.overwrite and not is_worker():
                self.project.clear()
                self.overwrite = False
            self._search = search = dataclasses.replace(search, trials=self._known(fingerprint))
            oracle = Oracle(
                search,
                self.algorithm,
                _objective(self.metric, self.direction),
                Rungs(self.halving, budget.steps),
                lambda values: warmup_steps(first.base | values, budget.steps),
                self.project,
                fingerprint,
                lease=self.lease if is_chief() or is_worker() else None,
                on_end=lambda record: self._ended(oracle, record),
            )
            Loop(oracle, runner, self.project).search()
            trials = self._known(fingerprint) if is_worker() else oracle.current().trials
            self._search = dataclasses.replace(search, trials=trials)
        return self._result()

    def _ended(self, oracle: Any, record: TrialRecord) -> None:
        self._search = search = oracle.current()
        best = search.best()
        self.project.keep_only([t.number for t in search.trials if not t.done] + ([best.number] if best else []))
        if self.verbose:
            assert self.budget is not None
            print(progress.line(record, search, self.metric, self.budget.steps), flush=True)

    def _check_metric(self, names: list[str]) -> None:
        if self.metric not in names:
            raise ConfigError(
                f"optimization_metric: the model does not report {self.metric!r}. It reports {', '.join(names)}"
            )
        if self.direction is None:
            from keras_tuner.engine.metrics_tracking import infer_metric_direction

            self.direction = infer_metric_direction(self.metric)
            if self.direction is None:
                raise ConfigError(
                    f'direction: whether {self.metric!r} should be small or large is not known; give "min" or "max"'
                )

    def _fingerprint(self, space: SearchSpace, patience: int | None) -> dict[str, Any]:
        """What a search must agree in to go on."""
        assert self.budget is not None
        halving = None if self.halving is None else dataclasses.asdict(self.halving)
        found = {
            "search_space": space.describe(),
            "optimization_metric": self.metric,
            "direction": self.direction,
            "search_algorithm": self.algorithm,
            "early_termination": halving,
            "seed": self.seed,
            "max_steps_per_trial": self.budget.steps,
            "validation_interval": self.budget.interval,
            "early_stopping_patience": patience,
            "other options": self._base,
        }
        return dict(json.loads(json.dumps(found, default=repr)))

    def _known(self, fingerprint: Mapping[str, Any]) -> list[TrialRecord]:
        """The trials in the directory."""
        state = self.project.load()
        if state is None:
            return []
        for name, value in fingerprint.items():
            if state["search"].get(name) != value:
                theirs = state["search"].get(name)
                raise ConfigError(
                    f"{self.project.folder} holds a search with another {name}: {theirs!r}, and this one has "
                    f"{value!r}. Choose another directory, or give overwrite=True to remove it"
                )
        trials = [TrialRecord.from_json(data) for data in state["trials"]]
        if trials and all(t.status == "failed" for t in trials if t.done):  # nothing ever worked: try again
            trials = [TrialRecord(t.number, t.options) for t in trials]
        return trials

    def _result(self) -> Values:
        best = self.best
        if best is None or best.status != "completed":
            counts = {s: sum(t.status == s for t in self.trials) for s in ("diverged", "failed", "pruned")}
            messages = [t.message.strip().splitlines()[-1] for t in self.trials if t.message.strip()]
            raise TuningError(
                "no trial completed: "
                + ", ".join(f"{n} {status}" for status, n in counts.items())
                + (f"; the last error was {messages[-1]}" if messages else "")
                + ". Try lower learning rates, or raise max_trials"
            )
        assert self.budget is not None
        return complete(self._base | best.options, self.budget.steps)

    # Results -----------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[TrialRecord]:
        """All trials so far, in the order in which they were proposed."""
        return list(self._search.trials) if self._search else []

    @property
    def best(self) -> TrialRecord | None:
        """The best trial so far."""
        return self._search.best() if self._search else None

    def table(self, most: int | None = None) -> str:
        """The trials as text, best first.

        Args:
            most: rows at most; default: all.
        """
        return progress.table(self._known_search(), self.metric, most)

    def report(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Path]:
        """Write figures (PNG, SVG), a page (HTML) and tables (CSV, JSON); also while the search goes on.

        Args:
            folder: default: "report" in the search's directory.

        Returns:
            Name -> path.

        Raises:
            ConfigError: there are no trials yet.
        """
        return report.write(self._known_search(), self.metric, self._report_folder(folder, "report"))

    def write_tensorboard(self, folder: str | os.PathLike[str] | None = None) -> None:
        """Write the trials that have ended for TensorBoard's HParams page; again later, those that came since.

        Args:
            folder: default: "tensorboard" in the search's directory.

        Raises:
            ConfigError: tensorboard is not installed, or there is no search yet.
        """
        hparams.write_tensorboard(self._known_search(), self._report_folder(folder, "tensorboard"))

    def _report_folder(self, folder: str | os.PathLike[str] | None, name: str) -> Path:
        return self.project.folder / name if folder is None else Path(folder)

    def load_best_weights(self, model: keras.Model) -> None:
        """Load the weights of the best trial, at its best step.

        Args:
            model: of the same architecture.
        """
        best = self._known_search().best()
        path = self.project.weights(best.number) if best else None
        if path is None or not path.exists():
            raise ConfigError(f"load_best_weights: {self.project.folder} holds no weights yet")
        optimizer, model.optimizer = getattr(model, "optimizer", None), None
        try:
            model.load_weights(path)
        finally:
            model.optimizer = optimizer

    def _known_search(self) -> Search:
        if self._search is None:
            raise ConfigError("there is no search yet: call find_optimal_hyperparameters first")
        return self._search


def metric_name(name: str) -> str:
    """The name in `fit`'s logs.

    >>> metric_name("validation_loss"), metric_name("validation_accuracy"), metric_name("val_loss")
    ('val_loss', 'val_accuracy', 'val_loss')
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"optimization_metric: expected a name, received {name!r}")
    if name in _METRICS:
        return _METRICS[name]
    return "val_" + name.removeprefix("validation_") if name.startswith("validation_") else name


def _halving(given: str | Halving | None, algorithm: str) -> Halving | None:
    if isinstance(given, Halving):
        return given
    default = "hyperband" if algorithm == "hyperband" else "successive_halving"
    return EARLY_TERMINATION[errors.choice("early_termination", given or default, EARLY_TERMINATION)]


def _objective(metric: str, direction: str | None) -> Any:
    import keras_tuner

    return keras_tuner.Objective(metric, direction)


def _any_algorithm(search_space: Any) -> Values:
    """Before the model is known, options are checked against any algorithm that has them all."""
    from capibara_keras.rules import RULES

    for algorithm in ("adam", *RULES):
        with contextlib.suppress(ConfigError):
            SearchSpace.parse(search_space, {"algorithm": algorithm})
            return {"algorithm": algorithm}
    return {}


def _named_algorithm(search_space: Mapping[str, Any]) -> Values:
    """A fixed algorithm in the search space replaces the model's: its other options may not exist there."""
    value = search_space.get("algorithm")
    return {"algorithm": value} if isinstance(value, str) else {}


def _within(space: SearchSpace, base: Values, steps: int) -> SearchSpace:
    """The space with warmups that end before the total of a schedule, where one is searched."""
    if space.name_of("scheduler_type") is None:
        return space
    most = space.name_of("gradient_accumulation_steps")
    each = space.dimension(most).domain.at(1) if most else base.get("gradient_accumulation_steps")
    return space.limited("warmup_steps", steps // int(each or 1) - 1)


def _made(model: Any, loss: Any, metrics: Any, seed: int | None) -> keras.Model:
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if not isinstance(model, keras.Model) and callable(model):
        model = model()
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model: expected a Keras model, or a function that returns one, received {model!r}")
    if loss is not None:
        model.compile(loss=loss, metrics=metrics)
    if not model.compiled:
        raise ConfigError("model: it is not compiled; compile it with its loss and metrics, or give `loss`")
    return model


@contextlib.contextmanager
def _distributed(model: Any, strategy: Any) -> Iterator[None]:
    """Under a `tf.distribute` strategy or a `keras.distribution` object."""
    if strategy is None:
        yield
        return
    if isinstance(model, keras.Model) and getattr(model, "distribute_strategy", None) is not strategy:
        raise ConfigError("distribution_strategy: give the model as a function, so that it is made under the strategy")
    if not hasattr(strategy, "scope"):
        raise ConfigError(
            f"distribution_strategy: expected a tf.distribute or keras.distribution object, received {strategy!r}"
        )
    with strategy.scope():
        yield

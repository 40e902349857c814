"""`Optimizer`: any algorithm by name, configured in one call or step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, config, errors
from capibara_keras.core import Core
from capibara_keras.describe import VariableDescription, describe, table
from capibara_keras.migration.keras3 import take_over
from capibara_keras.monitoring import (
    Alert,
    ConvergenceAnalysis,
    GradientAnalysis,
    OptimizationMetrics,
    analyze,
    convergence,
    plots,
)
from capibara_keras.pipeline import STATISTICS, State, update
from capibara_keras.records import StepRecord
from capibara_keras.schedules import SchedulePlan
from capibara_keras.types import Tensor, Variable
from capibara_keras.watch import Watch

__all__ = ["Optimizer"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Optimizer(Core):
    """An optimizer by the name of its algorithm.

    It is a `keras.optimizers.Optimizer`: give it to `model.compile`, or call `apply` or `step` in a loop.

    Args:
        algorithm: a name of `capibara_keras.algorithms()`: "adam", "adamw", "sgd", "lion", ….
        learning_rate: a number, a Keras schedule, or a callable without arguments. Default: the algorithm's.
            With a `scheduler_type` it is the peak.
        name: as in Keras.
        **options: hyperparameters of the algorithm (`beta_1`, `momentum`, …), options of the update
            (`weight_decay`, `global_clipnorm`, `gradient_accumulation_steps`, …) and of the schedule
            (`scheduler_type`, `warmup_steps`, `max_steps`, …); see `OptimizerConfig` and `SchedulePlan`. Other
            common spellings (`beta1`, `gradient_clip_norm`) are translated. Defaults are those of torch
            (`epsilon` 1e-8, no decay); those of `Adam`, `AdamW` and `SGD` are Keras'.

    Raises:
        ConfigError: a bad option; the message names the nearest valid one.

    >>> import capibara_keras as ck
    >>> optimizer = ck.Optimizer("adam", learning_rate=1e-4, beta1=0.9, weight_decay=0.01, gradient_clip_norm=1.0)
    >>> optimizer.configure_scheduler({"scheduler_type": "cosine_with_warmup", "warmup_steps": 10, "max_steps": 100})
    >>> print(f"{optimizer.get_learning_rate(step=10):.2e}")
    1.00e-04
    """

    def __init__(
        self, algorithm: str = "adam", learning_rate: Any = None, *, name: str | None = None, **options: Any
    ) -> None:
        given = {"algorithm": algorithm} | ({} if learning_rate is None else {"learning_rate": learning_rate})
        super().__init__(config.parse(given | options), name=name)

    # Schedules ---------------------------------------------------------------------------------------------

    def configure_scheduler(self, options: Mapping[str, Any]) -> None:
        """Add options to the schedule, or start one; later options win.

        Args:
            options: see `SchedulePlan`: `scheduler_type`, `warmup_steps`, `max_steps`, `min_learning_rate`,
                `cosine_restarts`, `restart_period`, `restart_decay`, …

        Raises:
            ConfigError: unknown or contradictory options.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", learning_rate=1.0)
        >>> optimizer.configure_scheduler({"warmup_steps": 10})
        >>> optimizer.get_learning_rate(step=5)
        0.5
        """
        current = self.configuration.schedule or SchedulePlan()
        self._schedule(current.merged(options))

    def configure_cosine_scheduler(self, options: Mapping[str, Any]) -> None:
        """Anneal along a cosine after a warmup: `CosineWithWarmup`. Replaces the schedule.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam")
        >>> optimizer.configure_cosine_scheduler({"warmup_steps": 2, "max_steps": 10, "max_learning_rate": 1.0})
        >>> round(optimizer.get_learning_rate(step=6), 6)
        0.5
        """
        self._schedule(SchedulePlan("cosine_with_warmup").merged(options))

    def configure_linear_scheduler(self, options: Mapping[str, Any]) -> None:
        """Decay linearly after a warmup: `LinearWithWarmup`. Replaces the schedule.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam")
        >>> optimizer.configure_linear_scheduler({"warmup_steps": 2, "training_steps": 10, "peak_lr": 1.0})
        >>> optimizer.get_learning_rate(step=6)
        0.5
        """
        self._schedule(SchedulePlan("linear_with_warmup").merged(options))

    def configure_polynomial_scheduler(self, options: Mapping[str, Any]) -> None:
        """Decay along a power after a warmup: `Polynomial`. Replaces the schedule.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", learning_rate=1.0)
        >>> optimizer.configure_polynomial_scheduler({"power": 2.0, "total_steps": 10})
        >>> optimizer.get_learning_rate(step=5)
        0.25
        """
        self._schedule(SchedulePlan("polynomial").merged(options))

    def get_learning_rate(self, step: int | None = None) -> float:
        """The learning rate at an update, as a Python float.

        Args:
            step: index of the update, from 0. Default: the next one.

        Raises:
            ConfigError: the schedule lacks an option, which the message names.

        >>> import capibara_keras as ck
        >>> ck.Optimizer("sgd", learning_rate=0.5).get_learning_rate()
        0.5
        """
        return float(ops.convert_to_numpy(self.learning_rate if step is None else self._rate_at(step)))

    # Updates -----------------------------------------------------------------------------------------------

    def step(
        self,
        gradients: Sequence[Tensor | None] | Mapping[str, Tensor | None],
        parameters: Sequence[Variable] | Mapping[str, Variable],
        step_number: int | None = None,
        return_metrics: bool = False,
    ) -> StepRecord | None:
        """One update in a loop of one's own.

        Args:
            gradients: one per parameter, as a list, or a dictionary with the parameters' keys.
            parameters: variables, as a list or a dictionary.
            step_number: the step at which the schedule is read; default: the number of updates so far. Bias
                correction always counts the updates that the state has seen.
            return_metrics: measure the norms of parameters and update too, and return the record.

        Returns:
            A `StepRecord`, or `None` without `return_metrics`. With accumulation, a call that only adds to the
            window returns the record of the last update.

        Raises:
            ConfigError: lists that do not match.

        >>> import capibara_keras as ck, keras
        >>> w = keras.Variable([3.0, 4.0])
        >>> optimizer = ck.Optimizer("sgd", learning_rate=0.5)
        >>> record = optimizer.step([keras.ops.array([0.0, 2.0])], [w], return_metrics=True)
        >>> record.gradient_norm, record.parameter_norm, record.update_norm
        (2.0, 5.0, 1.0)
        """
        if isinstance(parameters, Mapping):
            gradients, parameters = _by_name(gradients, parameters)
        if step_number is not None:
            step_number = errors.integer("step_number", step_number, 0)
        self._apply(list(gradients), list(parameters), measure=return_metrics, schedule_step=step_number)
        return self.statistics() if return_metrics else None

    # Clipping ----------------------------------------------------------------------------------------------

    def configure_gradient_clipping(self, options: Mapping[str, Any]) -> None:
        """Choose how gradients are clipped; replaces what was set before.

        Args:
            options: `clip_method` ("norm", "value", "adaptive", "agc"), `clip_value`, `per_parameter_clipping`,
                `adaptive_clipping` (`enable`, `percentile`, `history_length`, `min_clip_value`, `max_clip_value`),
                `clip_coeff` and `clip_output_layer` for "agc". Those without effect in the method are kept, and
                `describe` says so.

        Raises:
            ConfigError: a bad option.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", gradient_clip_norm=1.0)
        >>> optimizer.configure_gradient_clipping({"clip_method": "value", "clip_value": 0.5})
        >>> optimizer.clip_value, optimizer.global_clipnorm
        (0.5, None)
        """
        for name in options:
            if name not in config.CLIPPING:
                raise errors.unknown("clipping option", name, config.CLIPPING)
        self.reconfigure(dict.fromkeys((*config.CLIPPING, *config.CLIPS)) | dict(options))

    def analyze_gradients(
        self,
        gradients: Sequence[Tensor | None] | Mapping[str, Tensor | None],
        include_histogram: bool = False,
        include_layer_wise_stats: bool = True,
    ) -> GradientAnalysis:
        """Norms, zeros and non-finite entries of gradients, beside the norms of recent updates.

        Args:
            gradients: in the order of the variables, or by name.
            include_histogram: also a histogram of |g| in logarithmic bins.
            include_layer_wise_stats: also root mean square, zeros and non-finite entries of each layer.

        >>> import capibara_keras as ck, keras
        >>> ck.Optimizer("sgd").analyze_gradients({"dense/kernel": keras.ops.array([3.0, 4.0])}).layer_norms
        {'dense': 5.0}
        """
        if not isinstance(gradients, Mapping):
            paths = [row.path for row in self._rows] if self.built else [str(i) for i in range(len(gradients))]
            if len(paths) != len(gradients):
                raise errors.ConfigError(f"analyze_gradients: {len(gradients)} gradients for {len(paths)} variables")
            gradients = dict(zip(paths, gradients, strict=True))
        arrays = {path: ops.convert_to_numpy(g) for path, g in gradients.items() if g is not None}
        recent = self.recent_updates().statistics if self.built else dict.fromkeys(STATISTICS, np.zeros(0))
        clipped = (recent["clipped"] == 1).tolist() if self.configuration.clips else None
        norms = recent["gradient_norm"].tolist()
        return analyze(arrays, norms, clipped, histogram=include_histogram, layers=include_layer_wise_stats)

    # Health ------------------------------------------------------------------------------------------------

    @property
    def watch(self) -> Watch:
        """What watches this optimizer: that of the callback `HealthMonitor`, or one that begins when first asked."""
        if self.__dict__.get("_watch") is None:
            self._set(_watch=Watch(self, every=None))
        watch: Watch = self._watch
        return watch

    def get_optimization_metrics(self) -> OptimizationMetrics:
        """The training in numbers, as of the last update. Call it every 64 updates or more often, or attach
        `HealthMonitor`: then nothing is missed.

        Norms of parameters and updates are measured with `HealthMonitor` or `statistics_every`. The loss is known in
        `fit`, and in loops of one's own that call `observe`.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.Optimizer("sgd", learning_rate=0.1)
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([1.0, 2.0])])
        >>> metrics = optimizer.get_optimization_metrics()
        >>> metrics["grad_norm"], metrics["update_ratio"]
        (5.0, nan)
        """
        self.watch.update()
        return self.watch.metrics()

    def check_optimization_health(self) -> list[Alert]:
        """What is wrong with the training: the alerts since the last call, each once.

        See `get_optimization_metrics` for what is known when.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.Optimizer("sgd", learning_rate=0.1)
        >>> optimizer.apply([keras.ops.array([float("nan")])], [keras.Variable([1.0], name="w")])
        >>> for alert in optimizer.check_optimization_health():
        ...     print(alert.level, alert.id, alert.layer, alert.step)
        critical nonfinite_gradient w 0
        """
        self.watch.update()
        return self.watch.unread()

    def analyze_convergence(
        self,
        loss_history: Sequence[float] | np.ndarray,
        gradient_history: Sequence[float] | np.ndarray | None = None,
        window_size: int | None = None,
        smoothing_factor: float = 0.99,
    ) -> ConvergenceAnalysis:
        """Whether a loss still falls, how fast, and when it will have fallen: `monitoring.convergence.analyze`.

        Args:
            loss_history: one per update.
            gradient_history: norms of the gradient, of the same updates.
            window_size: last updates that `stability` is about.
            smoothing_factor: weight of the past in `smoothed_loss`.

        Raises:
            ConfigError: a bad argument.

        >>> import capibara_keras as ck
        >>> ck.Optimizer("sgd").analyze_convergence([2.0**-t for t in range(40)])["status"]
        'converged'
        """
        return convergence.analyze(loss_history, gradient_history, window_size, smoothing_factor)

    def generate_training_plots(
        self,
        metrics_history: Any,
        plot_types: Sequence[str] | None = None,
        save_plots: bool = False,
        plot_directory: str | Path = "training_plots",
    ) -> dict[str, Any]:
        """Figures of a training's history.

        Args:
            metrics_history: a list of `StepRecord` or of dictionaries with their names, a dictionary of lists, a Keras
                `History`, or the path of a file that `HealthMonitor` wrote; see `monitoring.reader.read`.
            plot_types: of "learning_rate_schedule", "gradient_norm_evolution", "parameter_updates" and
                "loss_landscape_approximation", which is the loss against the length of the path and no landscape.
                Default: those that the history has the numbers for.
            save_plots: write each as PNG and SVG.
            plot_directory: where to; it is made.

        Returns:
            {plot type: path of the PNG}, or matplotlib's `Figure` without `save_plots`.

        Raises:
            ConfigError: an unknown type, an empty history, numbers that a plot needs and the history has not, or a
                directory that cannot be written.

        >>> import capibara_keras as ck
        >>> plots = ck.Optimizer("sgd").generate_training_plots({"gradient_norm": [3.0, 2.0]})
        >>> plots["gradient_norm_evolution"].axes[0].get_yscale()
        'log'
        """
        return plots.generate(metrics_history, plot_types, save_plots, plot_directory)

    # Accumulation ------------------------------------------------------------------------------------------

    def configure_gradient_accumulation(self, options: Mapping[str, Any]) -> None:
        """Choose how micro-batches make up an update.

        Args:
            options: `accumulation_steps`, `normalize_gradients`, `scale_loss` (the loss arrives divided),
                `defer_clip_until_accumulation`, `sync_batchnorm`, `remainder`, `nonfinite`.

        Raises:
            ConfigError: a bad option.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam")
        >>> optimizer.configure_gradient_accumulation({"accumulation_steps": 16, "normalize_gradients": True})
        >>> optimizer.gradient_accumulation_steps
        16
        """
        for name in options:
            if config.ALIASES.get(name, name) not in config.ACCUMULATION:
                raise errors.unknown(
                    "accumulation option", name, [*config.ACCUMULATION, "accumulation_steps", "scale_loss"]
                )
        self.reconfigure(options)

    def accumulate_gradients(
        self,
        gradients: Sequence[Tensor | None] | Mapping[str, Tensor | None],
        parameters: Sequence[Variable] | Mapping[str, Variable] | None = None,
        weight: Any = None,
    ) -> None:
        """Add a micro-batch to the window. It never updates; `step_with_accumulated_gradients` does.

        Args:
            gradients, parameters: as in `step`.
            weight: in the mean over the window, ≥ 0: the number of tokens, say. Default 1.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.Optimizer("sgd", learning_rate=0.5)
        >>> for g in (1.0, 3.0):
        ...     optimizer.accumulate_gradients([keras.ops.array([g])], [w])
        >>> optimizer.step_with_accumulated_gradients()
        >>> w.numpy().tolist()
        [0.0]
        """
        if isinstance(parameters, Mapping):
            gradients, parameters = _by_name(gradients, parameters)
        self._accumulate(list(gradients), parameters, weight)

    def step_with_accumulated_gradients(self) -> None:
        """Update with what is in the window, however many micro-batches that are; nothing if there are none."""
        self.flush()

    def zero_grad(self) -> None:
        """Forget what is in the window. After an update it is empty anyway."""
        self._clear_window()

    # Looking and differentiating ---------------------------------------------------------------------------

    def describe(self, print_fn: Callable[[str], Any] = print) -> list[VariableDescription]:
        """Print a table of all variables: group, algorithm, multiplier of the rate, decay, shape, bytes of state.

        Args:
            print_fn: takes the text.

        Returns:
            The rows.

        Raises:
            ConfigError: before the optimizer is built.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.AdamW(differential_learning_rates={"head": 2.0})
        >>> optimizer.build([keras.Variable([0.0], name="head")])
        >>> optimizer.describe(print_fn=lambda text: None)[0].rate
        2.0
        """
        if not self.built:
            raise errors.ConfigError("describe: call `optimizer.build(variables)` first; there are no variables yet")
        parts, patterns = self.configuration.parts, ["", *(group.pattern for group in self.configuration.all_groups)]
        decays = [part.hyperparameters.get("weight_decay", 0.0) for part in parts]
        rows = describe(self._plan(), self._trainable_variables, self._rows, patterns, decays)
        print_fn(table(rows, config.idle_clipping(self.configuration)))
        return rows

    def functional_state(self) -> State:
        """The state as tensors, for `functional_step`; `state._replace(rate=…)` changes the rate."""
        return keras.tree.map_structure(backend.read, self._state)

    def functional_step(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], state: State
    ) -> tuple[list[Tensor], State]:
        """An update without side effects, which a `GradientTape` or `jax.grad` can differentiate: for meta-learning.

        Args:
            parameters: values of the variables that the optimizer was built with.
            gradients: of the same length.
            state: from `functional_state`, or from the last call.

        Returns:
            New parameters and new state.

        Raises:
            ConfigError: without `differentiable=True`, or before the optimizer is built.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.Optimizer("sgd", learning_rate=0.5, differentiable=True)
        >>> optimizer.build([keras.Variable([1.0])])
        >>> one = keras.ops.array([1.0])
        >>> (w,), state = optimizer.functional_step([one], [one], optimizer.functional_state())
        >>> keras.ops.convert_to_numpy(w).tolist()
        [0.5]
        """
        if not (self.differentiable and self.built):
            raise errors.ConfigError(
                "functional_step: needs differentiable=True, and `optimizer.build(variables)` before"
            )
        state = update(self._plan(), state._replace(params=list(parameters)), list(gradients))
        return state.params, state

    # Construction ------------------------------------------------------------------------------------------

    @classmethod
    def create_adam(cls, options: Mapping[str, Any]) -> Optimizer:
        """`Optimizer("adam", **options)`.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.create_adam({"algorithm": "adam", "learning_rate": 3e-4, "beta2": 0.95}).beta_2
        0.95
        """
        return _create("adam", options)

    @classmethod
    def create_adamw(cls, options: Mapping[str, Any]) -> Optimizer:
        """`Optimizer("adamw", **options)`.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.create_adamw({"weight_decay": 0.1}).weight_decay
        0.1
        """
        return _create("adamw", options)

    @classmethod
    def create_sgd(cls, options: Mapping[str, Any]) -> Optimizer:
        """`Optimizer("sgd", **options)`.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.create_sgd({"momentum": 0.9, "nesterov": True}).nesterov
        True
        """
        return _create("sgd", options)

    @classmethod
    def from_keras(cls, optimizer: Any) -> Any:
        """An optimizer that goes on where one of Keras' stands: its settings, and if it is built its state.

        Moments, counter, averages and window are taken over, a rate or schedule as it is now, clipping, accumulation,
        and what is excluded from weight decay. Keras' optimizer is left as it is.

        Args:
            optimizer: `Adam`, `AdamW`, `SGD`, `RMSprop`, `Nadam`, `Adamax`, `Adagrad`, `Adadelta`, `Ftrl`, `Lion`,
                `Lamb`, `Adafactor` or `Muon` of Keras, or a `LossScaleOptimizer` around one.

        Returns:
            An `Optimizer` of this class; for a `LossScaleOptimizer`, a new one around it, with the same scale.

        Raises:
            ConfigError: another class, or settings that have no counterpart here.

        >>> import capibara_keras as ck, keras
        >>> w, theirs = keras.Variable([1.0]), keras.optimizers.Adam(0.1)
        >>> theirs.apply([keras.ops.array([2.0])], [w])
        >>> ours = ck.Optimizer.from_keras(theirs)
        >>> ours.apply([keras.ops.array([2.0])], [w])
        >>> int(ours.iterations), round(float(w[0]), 4)
        (2, 0.8)
        """
        return take_over(optimizer, cls.from_config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """An optimizer from a flat dictionary, from what `get_config` returned, or from a serialised Keras one.

        Args:
            config: options by any of their names; or `{"class_name": …, "config": …}`.
            custom_objects: as in Keras.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.from_config({"algorithm": "sgd", "learning_rate": 0.1, "momentum": 0.9}).momentum
        0.9
        """
        options = dict(config)
        if set(options) >= {"class_name", "config"}:
            options = {"algorithm": str(options["class_name"]).lower()} | dict(options["config"])
        if isinstance(options.get("learning_rate"), dict):
            options["learning_rate"] = keras.saving.deserialize_keras_object(
                options["learning_rate"], custom_objects=custom_objects
            )
        return cls(**options)


def _create(algorithm: str, options: Mapping[str, Any]) -> Optimizer:
    if options.get("algorithm", algorithm) != algorithm:
        raise errors.ConfigError(f"create_{algorithm}: the options name another algorithm, {options['algorithm']!r}")
    return Optimizer(**({"algorithm": algorithm} | dict(options)))


def _by_name(gradients: Any, parameters: Mapping[str, Variable]) -> tuple[list[Tensor | None], list[Variable]]:
    """Gradients and parameters in the order of the parameters' dictionary."""
    if not isinstance(gradients, Mapping):
        raise errors.ConfigError(f"gradients: expected a dictionary, as parameters is one, received {type(gradients)}")
    if unknown := set(gradients) - set(parameters):
        raise errors.unknown("gradient", sorted(unknown)[0], parameters)
    return [gradients.get(name) for name in parameters], list(parameters.values())

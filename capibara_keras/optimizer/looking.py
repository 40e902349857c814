"""What is going on, and what was chosen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from capibara_keras import config, errors
from capibara_keras.describe import VariableDescription, describe, table
from capibara_keras.landscape import around
from capibara_keras.memory import MemoryReport, memory_report, variables_of
from capibara_keras.monitoring import (
    Alert,
    ConvergenceAnalysis,
    GradientAnalysis,
    LossLine,
    LossPlane,
    OptimizationMetrics,
    analyze,
    convergence,
    plots,
)
from capibara_keras.optimizer.stepping import Stepping
from capibara_keras.pipeline import STATISTICS
from capibara_keras.recipes import Choice
from capibara_keras.recipes.recipe import text_of
from capibara_keras.recipes.table import explained, remade
from capibara_keras.types import Tensor
from capibara_keras.watch import Watch

__all__ = ["Looking"]


class Looking(Stepping):
    """Metrics, alerts, plots, tables."""

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
        *,
        landscape: LossLine | LossPlane | None = None,
        model: Any = None,
        batch: tuple[Any, ...] | None = None,
    ) -> dict[str, Any]:
        """Figures of a training's history.

        Args:
            metrics_history: a list of `StepRecord` or of dictionaries with their names, a dictionary of lists, a Keras
                `History`, or the path of a file that `HealthMonitor` wrote; see `monitoring.reader.read`.
            plot_types: of "learning_rate_schedule", "gradient_norm_evolution", "parameter_updates" and
                "loss_landscape_approximation", which without `landscape` or `model` is the loss against the length of
                the path and no landscape. Default: those that the history has the numbers for.
            save_plots: write each as PNG and SVG.
            plot_directory: where to; it is made.
            landscape: from `loss_landscape` or `trajectory_plane`.
            model, batch: compute it here: `loss_landscape(model, *batch)`.

        Returns:
            {plot type: path of the PNG}, or matplotlib's `Figure` without `save_plots`.

        Raises:
            ConfigError: an unknown type, an empty history, numbers that a plot needs and the history has not, a
                directory that cannot be written; or a model of which no landscape can be computed.

        >>> import capibara_keras as ck
        >>> plots = ck.Optimizer("sgd").generate_training_plots({"gradient_norm": [3.0, 2.0]})
        >>> plots["gradient_norm_evolution"].axes[0].get_title()
        'Norm of the gradient'
        """
        landscape = around(landscape, model, batch)
        return plots.generate(metrics_history, plot_types, save_plots, plot_directory, landscape)

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

    def explain(self, print_fn: Callable[[str], Any] = print) -> list[Choice]:
        """Print every option that is set, why it has its value, and the source.

        Args:
            print_fn: takes the text.

        Returns:
            The options, and behind them the advice of the recipe that they come from, if they do.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer.create_pretraining_optimizer("small", "large", 10_000)
        >>> next(c.source for c in optimizer.explain(print_fn=lambda text: None) if c.option == "beta_2")
        'Brown et al. 2020, Appendix B'
        """
        configuration = self.configuration
        sizes = variables_of(self._trainable_variables) if self.built else None
        recipe = None if configuration.recipe is None else remade(configuration.recipe, sizes)
        defaults = config.parse({"algorithm": configuration.algorithm}).to_options() | _defaults_of(type(self))
        choices = explained(configuration.to_options(), recipe, defaults)
        advice = list(recipe.advice) if recipe else []
        print_fn(text_of(choices, advice))
        return choices + advice

    def memory_report(self, model: Any = None) -> MemoryReport:
        """Bytes of parameters, gradients and state on each device; `print` shows them as a table.

        Args:
            model: a built one; counts its weights that are not trained too, and works before the optimizer is built.
                Default: the variables that the optimizer was built with.

        Raises:
            ConfigError: neither a built model nor a built optimizer.

        >>> import capibara_keras as ck, keras
        >>> model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(10)])
        >>> ck.AdamW().memory_report(model)["slots"]
        8080
        """
        if model is not None and not model.built:
            raise errors.ConfigError("memory_report: the model has no variables yet; call it once, or give it an Input")
        if model is None and not self.built:
            raise errors.ConfigError("memory_report: give a built model, or call `optimizer.build(variables)` first")
        trained = self._trainable_variables if model is None else model.trainable_variables
        others = [] if model is None else model.non_trainable_variables
        return memory_report(self.configuration, trained, others)


def _defaults_of(kind: type) -> dict[str, Any]:
    """Of a class that has Keras' defaults, in its arguments."""
    given = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in given if p.default is not p.empty and p.name != "algorithm"}

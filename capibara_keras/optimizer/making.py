"""`Optimizer`: any algorithm by name, configured in one call or step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import keras

from capibara_keras import config, errors, recipes
from capibara_keras.memory import variables_of
from capibara_keras.migration.keras_state import take_over
from capibara_keras.optimizer.looking import Looking
from capibara_keras.recipes.finetuning import finetuning_options
from capibara_keras.recipes.overriding import decided, over
from capibara_keras.recipes.pretraining import large_model_options
from capibara_keras.recipes.table import remade
from capibara_keras.schedules import Custom
from capibara_keras.types import Variable

__all__ = ["Optimizer"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Optimizer(Looking):
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
    def create_for_large_model(cls, options: Mapping[str, Any] | None = None) -> Optimizer:
        """For models beyond 10^9 parameters: AdamW, β 0.9 and 0.95, decay 0.1 of matrices, clipping at 1, accumulation
        of 8, warmup over 3 % and a cosine to a tenth. The total of steps comes from `fit`, or from `max_steps`.

        Args:
            options: as in the constructor, over these.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.create_for_large_model({"learning_rate": 1e-4}).beta_2
        0.95
        """
        return Optimizer(**over(large_model_options(), options or {}))

    @classmethod
    def create_for_finetuning(cls, options: Mapping[str, Any] | None = None) -> Optimizer:
        """For models that are pretrained: AdamW at 5e-5, layer-wise rates of 0.95, linear schedule with warmup.

        Args:
            options: as in the constructor, over these.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.create_for_finetuning({"weight_decay": 0.0}).layer_wise_lr_decay
        0.95
        """
        return Optimizer(**over(finetuning_options(), options or {}))

    @classmethod
    def create_pretraining_optimizer(
        cls,
        model_size: Any = "small",
        dataset_size: Any = "large",
        target_steps: int | None = None,
        *,
        tokens_per_batch: Any = None,
        **options: Any,
    ) -> Optimizer:
        """AdamW with rate, warmup and decay by published rules for this size; see `recipes.pretraining`.

        Args:
            model_size: parameters: a number, "350M", or "tiny" (10M), "small" (125M), "medium" (350M), "large" (760M),
                "xl" (1.3B).
            dataset_size: tokens: a number, "2B", or "small", "medium", "large", "multi_billion_tokens" (10B).
            target_steps: updates of the whole training; default: `fit` tells.
            tokens_per_batch: tokens of one update, if not what `explain` advises.
            **options: over the recipe's, as in the constructor.

        Raises:
            ConfigError: a size that is none, or a bad option.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer.create_pretraining_optimizer("large", "multi_billion_tokens", target_steps=500_000)
        >>> print(f"{optimizer.get_learning_rate(step=2000):.2e}")
        2.50e-04
        """
        recipe = recipes.pretraining(model_size, dataset_size, target_steps, tokens_per_batch)
        return Optimizer(**over(recipe.options, options))

    @classmethod
    def create_finetuning_optimizer(
        cls,
        task_type: str = "text_classification",
        dataset_size: Any = "medium",
        target_epochs: int | None = None,
        **options: Any,
    ) -> Optimizer:
        """AdamW with layer-wise rates, as models of this kind are fine-tuned; see `recipes.finetuning`. The total of
        updates comes from `fit`, through any callback of this package.

        Args:
            task_type: "text_classification", "token_classification", "regression", "image_classification" or
                "generation".
            dataset_size: examples: a number, "20k", or "small" (2500), "medium" (50 000), "large" (500 000).
            target_epochs: epochs that `fit` will run; for the advice of `explain`.
            **options: over the recipe's, as in the constructor.

        >>> import capibara_keras as ck
        >>> ck.Optimizer.create_finetuning_optimizer("text_classification", "medium", target_epochs=3).weight_decay
        0.01
        """
        return Optimizer(**over(recipes.finetuning(task_type, dataset_size, target_epochs).options, options))

    @classmethod
    def create_efficient_optimizer(
        cls,
        memory_budget: Any,
        compute_budget: str = "medium",
        prioritize: str = "quality",
        *,
        model: Any = None,
        learning_rate: float = 1e-3,
        **options: Any,
    ) -> Optimizer:
        """The best algorithm and precision whose state fits beside parameters and gradients; see `recipes.efficient`.

        Args:
            memory_budget: bytes, or "8GB", "512 MiB".
            compute_budget: "low", "medium" or "high".
            prioritize: "memory", "speed" or "quality": which of those that fit wins.
            model: a built one. Without, the choice is made when the optimizer is built, from the variables that are
                trained; `algorithm` is provisional until then.
            learning_rate: for AdamW; other algorithms get a multiple.
            **options: over the recipe's, as in the constructor.

        Raises:
            ConfigError: nothing fits; it says by how much.

        >>> import capibara_keras as ck, keras
        >>> model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(300)])
        >>> optimizer = ck.Optimizer.create_efficient_optimizer("1MB", model=model)
        >>> optimizer.state_precision
        '8bit'
        """
        variables = None
        if model is not None:
            variables = variables_of(model.trainable_variables, model.non_trainable_variables)
        recipe = recipes.efficient(memory_budget, compute_budget, prioritize, learning_rate, variables=variables)
        return Optimizer(**over(recipe.options, options))

    @classmethod
    def create_research_optimizer(
        cls,
        experimental_features: bool = False,
        detailed_logging: bool = True,
        custom_schedulers: bool = False,
        **options: Any,
    ) -> Optimizer:
        """AdamW with textbook settings, for experiments; see `recipes.research`.

        Args:
            experimental_features: allow algorithms and modifiers that are new: SOAP, Prodigy, `cautious`, ….
            detailed_logging: all norms of each layer at every update.
            custom_schedulers: allow any function `step -> rate` as `learning_rate`; `step` is a tensor.
            **options: over the recipe's, as in the constructor.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer.create_research_optimizer(
        ...     custom_schedulers=True, learning_rate=lambda step: 0.1 / (1 + step)
        ... )
        >>> round(optimizer.get_learning_rate(step=9), 6)
        0.01
        """
        recipe = recipes.research(experimental_features, detailed_logging, custom_schedulers, options)
        rate = options.get("learning_rate")
        if (
            custom_schedulers
            and callable(rate)
            and not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
        ):
            options["learning_rate"] = Custom(rate)
        return Optimizer(**over(recipe.options, options))

    def _complete(self, variables: list[Variable]) -> None:
        """A recipe for a memory budget is decided by the variables."""
        recipe = self.configuration.recipe
        if self.built or recipe is None or recipe["name"] != "efficient":
            return
        sized = variables_of(variables)
        self._change(decided(self.configuration, remade(recipe), remade(recipe, sized)))

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

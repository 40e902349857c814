"""Keras' own optimizers: their settings as options, and their state.

The names of Keras' private lists of state are all in `TRANSLATIONS`; a test fails loudly when Keras changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from capibara_keras import errors
from capibara_keras.migration.keras_muon import muon_options
from capibara_keras.migration.micro_batches import MicroBatchSchedule
from capibara_keras.rules import RULES
from capibara_keras.variables import path_of

__all__ = ["TRANSLATIONS", "Translation", "keras_options", "take_over"]

Reader: TypeAlias = Callable[[Any, int], Any]
"""(Keras' optimizer, number of the variable) -> the value of one of our slots."""


@dataclass(frozen=True)
class Translation:
    """How one of Keras' optimizers is said here.

    Args:
        algorithm: a key of `rules.RULES`.
        options: attributes of Keras' optimizer that are options of the same name.
        slots: name of a slot -> attribute that holds its values by variable, or what reads one.
        others: options that follow from the optimizer in another way.

    >>> TRANSLATIONS["Lion"].slots
    {'m': '_momentums'}
    """

    algorithm: str
    options: tuple[str, ...]
    slots: Mapping[str, str | Reader]
    others: Callable[[Any], dict[str, Any]] = field(default=lambda optimizer: {})


def _per_rate(name: str, sign: float) -> Reader:
    """A buffer that Keras keeps multiplied by the learning rate, divided by it."""

    def read(optimizer: Any, i: int) -> Any:
        rate = float(ops.convert_to_numpy(ops.convert_to_tensor(optimizer.learning_rate)))
        if rate == 0:
            raise errors.ConfigError(
                f"from_keras: the rate of {optimizer.name!r} is 0, and Keras keeps its momentum multiplied by it: what "
                "the momentum is cannot be told. Set learning_rate before"
            )
        return sign * ops.convert_to_numpy(getattr(optimizer, name)[i]) / rate

    return read


def _factor(rows: bool) -> Reader:
    """Adafactor's means over the longer of the last two axes (`rows`), and over the shorter; ours are named by length,
    Keras' by place."""

    def read(optimizer: Any, i: int) -> Any:
        shape = tuple(optimizer._trainable_variables[i].shape)
        axes = RULES["adafactor"](min_dim_size_to_factor=1).axes(shape)
        if axes is None or set(axes) != {len(shape) - 2, len(shape) - 1}:
            raise errors.ConfigError(
                f"from_keras: Adafactor of Keras keeps means over the last two axes of "
                f"{path_of(optimizer._trainable_variables[i])}, of shape {shape}; here they are over the largest two"
            )
        averaged = axes[1] if rows else axes[0]
        return (optimizer._r if averaged == len(shape) - 1 else optimizer._c)[i]

    return read


_FTRL = (
    "learning_rate_power",
    "initial_accumulator_value",
    "l1_regularization_strength",
    "l2_regularization_strength",
    "l2_shrinkage_regularization_strength",
    "beta",
)
_ADAM = Translation(
    "adam",
    ("beta_1", "beta_2", "epsilon", "amsgrad"),
    {"m": "_momentums", "v": "_velocities", "v_max": "_velocity_hats"},
)
TRANSLATIONS = {
    "Adam": _ADAM,
    "AdamW": Translation("adamw", _ADAM.options, _ADAM.slots),
    "SGD": Translation("sgd", ("momentum", "nesterov"), {"momentum": _per_rate("momentums", -1)}),
    "RMSprop": Translation(
        "rmsprop",
        ("rho", "momentum", "epsilon", "centered"),
        {"v": "_velocities", "mean": "_average_gradients", "momentum": _per_rate("_momentums", 1)},
    ),
    "Nadam": Translation(
        "nadam",
        ("beta_1", "beta_2", "epsilon"),
        {"m": "_momentums", "v": "_velocities", "momentum_product": lambda optimizer, i: optimizer._u_product},
        lambda optimizer: {"momentum_decay": 1.0},
    ),
    "Adamax": Translation("adamax", ("beta_1", "beta_2", "epsilon"), {"m": "_m", "v": "_u"}),
    "Adagrad": Translation(
        "adagrad", ("initial_accumulator_value", "epsilon"), {"accumulator_of_squares": "_accumulators"}
    ),
    "Adadelta": Translation(
        "adadelta", ("rho", "epsilon"), {"v": "_accumulated_grads", "d": "_accumulated_delta_vars"}
    ),
    "Ftrl": Translation("ftrl", _FTRL, {"n": "_accumulators", "z": "_linears"}),
    "Lion": Translation("lion", ("beta_1", "beta_2"), {"m": "_momentums"}),
    "Lamb": Translation("lamb", ("beta_1", "beta_2", "epsilon"), {"m": "_momentums", "v": "_velocities"}),
    "Adafactor": Translation(
        "adafactor",
        ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold"),
        {"rows": _factor(True), "columns": _factor(False), "v": "_v"},
        lambda optimizer: {"min_dim_size_to_factor": 1},  # `relative_step` has no effect there: the rate is limited
    ),
    "Muon": Translation(
        "muon",
        ("momentum", "nesterov", "epsilon"),
        {
            "momentum": lambda optimizer, i: (1 - optimizer.momentum) * ops.convert_to_numpy(optimizer.momentums[i]),
            "m": "momentums",
            "v": "adam_velocities",
        },
        muon_options,
    ),
}
"""Name of Keras' class -> how it is said here."""


def keras_options(optimizer: Any) -> dict[str, Any]:
    """The settings of one of Keras' optimizers, as options of `Optimizer`: the rate or schedule as it is now, clipping,
    averaging, accumulation, decay and what is excluded from it.

    Args:
        optimizer: an object of a class in `keras.optimizers`, built or not; a `LossScaleOptimizer` is not one.

    Raises:
        ConfigError: a class that has no counterpart here, or an option that has none.

    >>> import keras
    >>> options = keras_options(keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0))
    >>> options["algorithm"], options["learning_rate"], options["clipnorm"]
    ('sgd', 0.1, 1.0)
    """
    translation = _translation(optimizer)
    steps = optimizer.gradient_accumulation_steps or 1
    options = {
        "algorithm": translation.algorithm,
        "name": optimizer.name,
        "learning_rate": _rate(optimizer, steps),
        **{name: getattr(optimizer, name) for name in translation.options},
        **{name: getattr(optimizer, name) or None for name in ("clipnorm", "clipvalue", "global_clipnorm")},
        "weight_decay": optimizer.weight_decay,
        "use_ema": optimizer.use_ema,
        "ema_momentum": optimizer.ema_momentum**steps,  # Keras averages at each micro-batch
        "ema_overwrite_frequency": optimizer.ema_overwrite_frequency,
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "loss_scale_factor": optimizer.loss_scale_factor,
        "weight_decay_exclude": [] if optimizer.built else _excluded_names(optimizer),
    }
    return options | translation.others(optimizer)


def take_over(optimizer: Any, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """An optimizer that goes on where one of Keras' stands; see `Optimizer.from_keras`.

    Args:
        optimizer: Keras'.
        make: makes ours from options.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _take_over_scaled(optimizer, make)
    result = make(keras_options(optimizer))
    if optimizer.built:
        variables = optimizer._trainable_variables
        excluded = [v for v in variables if not optimizer._use_weight_decay(v)]
        if excluded:
            result.exclude_from_weight_decay(var_list=excluded)
        result.build(variables)
        _take_state(result, optimizer)
    return result


def _take_over_scaled(optimizer: Any, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """The same in a `LossScaleOptimizer` of its own, with the scale of the old one."""
    inner = take_over(optimizer.inner_optimizer, make)
    result = keras.optimizers.LossScaleOptimizer(
        inner, optimizer.initial_scale, optimizer.dynamic_growth_steps, name=optimizer.name
    )
    if optimizer.built:
        result.build(optimizer.inner_optimizer._trainable_variables)
        for name in ("step_counter", "dynamic_scale"):
            getattr(result, name).assign(getattr(optimizer, name))
    return result


def _translation(optimizer: Any) -> Translation:
    """By the exact class: one that is derived from it may do anything."""
    name = type(optimizer).__name__
    if isinstance(optimizer, str):
        raise errors.ConfigError(f"from_keras: expected an optimizer of Keras, received {optimizer!r}")
    if name not in TRANSLATIONS or getattr(keras.optimizers, name, None) is not type(optimizer):
        shown = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        raise errors.ConfigError(
            f"from_keras: {shown} has no counterpart here. Allowed: objects of exactly keras.optimizers."
            f"{', '.join(TRANSLATIONS)}, or a LossScaleOptimizer around one"
        )
    return TRANSLATIONS[name]


def _rate(optimizer: Any, steps: int) -> Any:
    """The present rate in as few digits as tell it from others, or what gives it."""
    source = optimizer._learning_rate
    if isinstance(source, keras.optimizers.schedules.LearningRateSchedule) and steps > 1:
        return MicroBatchSchedule(source, steps)
    return source if callable(source) else float(str(ops.convert_to_numpy(source)))


def _excluded_names(optimizer: Any) -> list[str]:
    """What an optimizer that is not built will leave out of decay. Keras searches the last part of a path."""
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise errors.ConfigError(
            "from_keras: variables were excluded from weight decay, and which ones is known only after "
            "`optimizer.build(model.trainable_variables)`: call it before"
        )
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    if pattern is None:
        return []
    return [rf"(?:{part.replace('^', '(?:^|/)')})[^/]*$" for part in sorted(pattern.pattern.split("|"))]


def _take_state(result: Any, optimizer: Any) -> None:
    """Counter, slots, averages and window. Ours is built on the same variables, and has done no update."""
    inventory, steps = result._inventory(), optimizer.gradient_accumulation_steps or 1
    seen = int(ops.convert_to_numpy(optimizer._iterations))
    values: dict[tuple[str, str], Any] = {("iteration", ""): seen // steps}
    counters = np.array(ops.convert_to_numpy(inventory["counters", ""]))
    counters[0] = seen  # micro-batches
    values["counters", ""] = counters
    slots, size = _translation(optimizer).slots, len(result._rows)
    for i, row in enumerate(result._rows):
        for name in row.slots:
            source = slots[name]
            values[name, row.path] = getattr(optimizer, source)[i] if isinstance(source, str) else source(optimizer, i)
        if row.average is not None:
            values["average", row.path] = optimizer._model_variables_moving_average[i]
        if row.accumulator is not None:
            values["accumulator", row.path] = optimizer._accumulated_gradients[i]
    if steps > 1:
        pending = seen % steps
        values |= {("micro_step", ""): pending, ("window_weight", ""): pending}
        values["contributed", ""] = np.full(size, pending)
    for key, value in values.items():
        inventory[key].assign(ops.cast(ops.convert_to_numpy(value), inventory[key].dtype))

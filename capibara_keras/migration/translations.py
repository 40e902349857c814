"""How each of Keras' optimizers is said here: names of options, and where its state is.

The names of Keras' private lists of state are all here; a test fails loudly when Keras changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from keras import ops

from capibara_keras import errors
from capibara_keras.migration.keras_muon import muon_options
from capibara_keras.rules import RULES
from capibara_keras.variables import path_of

__all__ = ["TRANSLATIONS", "Translation"]

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

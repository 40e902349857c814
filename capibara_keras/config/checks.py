"""What a value of an option may be."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import keras

from capibara_keras import errors
from capibara_keras.groups import check_pattern
from capibara_keras.rules import STATE_PRECISIONS

__all__ = ["CHECKS", "Rate", "patterns", "rate"]

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any]
"""A learning rate: a number, a schedule, or a callable without arguments."""


WEIGHT_DECAY_MODES = ("decoupled", "independent", "corrected", "l2")


NONFINITE_POLICIES = ("skip", "drop_micro_batch", "raise", "propagate")


REMAINDERS = ("flush", "carry")


def rate(value: Any) -> Rate:
    """A learning rate as given by a user: a number of any kind, a schedule, a serialised schedule, a callable."""
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, str):
        raise errors.ConfigError(f"learning_rate: expected a number, a schedule or a callable, received {value!r}")
    if callable(value):
        if not isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
            _without_arguments(value)
        return value
    if getattr(value, "shape", None) == ():
        value = float(value)
    return errors.number("learning_rate", value, 0)


def _without_arguments(value: Callable[..., Any]) -> None:
    """Refuse a function of the step, which would fail at the first update."""
    try:
        inspect.signature(value).bind()
    except TypeError as error:
        raise errors.ConfigError(
            f"learning_rate: a callable is called without arguments ({error}). A function of the step is a schedule: "
            "give capibara_keras.schedules.Custom(function)"
        ) from error
    except ValueError:  # a builtin that does not tell
        pass


def patterns(value: str | Iterable[str]) -> tuple[str, ...]:
    """Path patterns as a tuple without repetitions."""
    values = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    for item in values:
        try:
            re.compile(item)
        except (TypeError, re.error) as error:
            raise errors.ConfigError(
                f"weight_decay_exclude: expected regular expressions of variable paths, received {item!r} ({error})"
            ) from error
    return tuple(dict.fromkeys(values))


def _by_pattern(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """The check of a dictionary from patterns to what `check` allows."""

    def check_all(name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise errors.ConfigError(f"{name}: expected a dictionary from patterns to numbers, received {value!r}")
        return {check_pattern(p, name): check(f"{name}[{p!r}]", x) for p, x in value.items()}

    return check_all


def _recipe(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise errors.ConfigError(f"{name}: expected a dictionary with the recipe's 'name', received {value!r}")
    return dict(value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "weight_decay": lambda name, x: errors.number(name, x, 0),
    "weight_decay_mode": lambda name, x: errors.choice(name, x, WEIGHT_DECAY_MODES),
    "skip_spikes": lambda name, x: errors.number(name, x, 0, open_low=True),
    "ema_momentum": lambda name, x: errors.number(name, x, 0, 1),
    "ema_overwrite_frequency": lambda name, x: errors.integer(name, x, 1),
    "statistics_every": lambda name, x: errors.integer(name, x, 1),
    "state_precision": lambda name, x: errors.choice(name, x, tuple(STATE_PRECISIONS)),
    "lookahead_steps": lambda name, x: errors.integer(name, x, 1),
    "lookahead_alpha": lambda name, x: errors.number(name, x, 0, 1, open_low=True),
    "remainder": lambda name, x: errors.choice(name, x, REMAINDERS),
    "loss_scale_factor": lambda name, x: errors.number(name, x, 0, open_low=True),
    "nonfinite": lambda name, x: errors.choice(name, x, NONFINITE_POLICIES),
    "recipe": lambda name, x: _recipe(name, x),
    "layer_wise_lr_decay": lambda name, x: errors.number(name, x, 0, 1, open_low=True),
    "layer_depths": _by_pattern(lambda name, x: errors.integer(name, x, 0)),
    "differential_learning_rates": _by_pattern(lambda name, x: errors.number(name, x, 0)),
} | dict.fromkeys(
    (
        "use_scheduler",
        "use_ema",
        "accumulator",
        "normalize_gradients",
        "loss_divided",
        "defer_clip_until_accumulation",
        "sync_batchnorm",
        "kahan_summation",
        "cautious",
        "gradient_centralization",
        "maximize",
        "foreach",
        "differentiable",
        "shard_state",
        "jit_compile",
        "no_deprecation_warning",
    ),
    errors.boolean,
)
"""Option -> what returns its value if it is allowed, and raises `ConfigError` if not."""

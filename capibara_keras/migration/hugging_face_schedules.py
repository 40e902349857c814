"""The schedules of Hugging Face's `TrainingArguments` as options."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from capibara_keras import errors

__all__ = ["schedule_options"]

_Given = Mapping[str, Any]


def schedule_options(given: _Given) -> dict[str, Any]:
    """Options of the schedule; none for a constant rate, whose warmup Hugging Face ignores.

    Args:
        given: all of `TrainingArguments` that is about the update, defaults included.

    Raises:
        ConfigError: a schedule that has no counterpart, or keyword arguments that it does not have.
    """
    name = given["lr_scheduler_type"]
    if name == "constant":
        return {}
    if name == "reduce_lr_on_plateau":
        raise errors.ConfigError(
            "from_hugging_face: lr_scheduler_type 'reduce_lr_on_plateau' is a callback in Keras: say 'constant', and "
            "give `fit` keras.callbacks.ReduceLROnPlateau"
        )
    if name not in _SCHEDULES:
        raise errors.unknown("lr_scheduler_type", name, [*_SCHEDULES, "constant"])
    kwargs = _keywords(given["lr_scheduler_kwargs"])
    warmup = _warmup(given)
    options = _SCHEDULES[name](kwargs, given, warmup)
    if kwargs:
        raise errors.ConfigError(
            f"from_hugging_face: lr_scheduler_type {name!r} has no lr_scheduler_kwargs {sorted(kwargs)} here"
        )
    total = errors.integer("max_steps", given["max_steps"])
    return ({"total_steps": total} if total > 0 else {}) | warmup | options


def _keywords(given: Any) -> dict[str, Any]:
    """`lr_scheduler_kwargs`: a dictionary, or its JSON, which Hugging Face takes from a command line."""
    with contextlib.suppress(ValueError):
        given = json.loads(given) if isinstance(given, str) and given else given
    if given and not isinstance(given, Mapping):
        raise errors.ConfigError(f"from_hugging_face: lr_scheduler_kwargs must be a dictionary, received {given!r}")
    return dict(given or {})


def _warmup(given: _Given) -> dict[str, Any]:
    """`warmup_steps` wins over `warmup_ratio`; below 1 it is a ratio itself."""
    steps = errors.number("warmup_steps", given["warmup_steps"] or 0, 0)
    if 0 < steps < 1:
        return {"warmup_ratio": steps}
    if steps or not given["warmup_ratio"]:
        return {"warmup_steps": errors.integer("warmup_steps", steps, 0)}
    return {"warmup_ratio": given["warmup_ratio"]}


def _cosine(kwargs: dict[str, Any], given: _Given, warmup: _Given) -> dict[str, Any]:
    if (cycles := kwargs.pop("num_cycles", 0.5)) != 0.5:
        raise errors.ConfigError(
            f"from_hugging_face: num_cycles of the cosine can only be 0.5 here (once down), received {cycles!r}"
        )
    return {"scheduler_type": "cosine_with_warmup"}


def _cosine_with_floor(kwargs: dict[str, Any], given: _Given, warmup: _Given) -> dict[str, Any]:
    floor = {"min_lr": "min_learning_rate", "min_lr_rate": "min_lr_ratio"}
    found = {floor[name]: kwargs.pop(name) for name in floor if kwargs.get(name) is not None}
    if len(found) != 1:
        raise errors.ConfigError("from_hugging_face: cosine_with_min_lr needs one of min_lr and min_lr_rate")
    return _cosine(kwargs, given, warmup) | found


def _polynomial(kwargs: dict[str, Any], given: _Given, warmup: _Given) -> dict[str, Any]:
    options = {"min_learning_rate": kwargs.pop("lr_end", 1e-7), "power": kwargs.pop("power", 1.0)}
    return {"scheduler_type": "polynomial"} | options


def _stable_decay(kwargs: dict[str, Any], given: _Given, warmup: _Given) -> dict[str, Any]:
    """The warmup of Hugging Face begins at the floor."""
    if kwargs.pop("warmup_type", "linear") != "linear" or kwargs.pop("num_cycles", 0.5) != 0.5:
        raise errors.ConfigError(
            "from_hugging_face: warmup_stable_decay has warmup_type 'linear' and num_cycles 0.5 here"
        )
    if "num_decay_steps" not in kwargs:
        raise errors.ConfigError("from_hugging_face: warmup_stable_decay needs num_decay_steps in lr_scheduler_kwargs")
    decay, ratio = kwargs.pop("num_decay_steps"), kwargs.pop("min_lr_ratio", 0.0)
    options = {"scheduler_type": "wsd", "decay_steps": decay, "decay_shape": kwargs.pop("decay_type", "cosine")}
    if (stable := kwargs.pop("num_stable_steps", None)) is not None:
        if "warmup_steps" not in warmup:
            raise errors.ConfigError("from_hugging_face: num_stable_steps needs warmup_steps, not a ratio")
        options["total_steps"] = warmup["warmup_steps"] + stable + decay
    return options | {"min_lr_ratio": ratio, "warmup_init_lr": ratio * given["learning_rate"]}


_SCHEDULES: dict[str, Callable[[dict[str, Any], _Given, _Given], dict[str, Any]]] = {
    "linear": lambda kwargs, given, warmup: {"scheduler_type": "linear_with_warmup"},
    "cosine": _cosine,
    "cosine_with_restarts": lambda kwargs, given, warmup: {
        "scheduler_type": "cosine_with_warmup",
        "cosine_cycles": kwargs.pop("num_cycles", 1),
    },
    "cosine_with_min_lr": _cosine_with_floor,
    "polynomial": _polynomial,
    "constant_with_warmup": lambda kwargs, given, warmup: {"scheduler_type": "constant_with_warmup"},
    "inverse_sqrt": lambda kwargs, given, warmup: {
        "scheduler_type": "inverse_sqrt",
        "timescale": kwargs.pop("timescale", None),
    },
    "warmup_stable_decay": _stable_decay,
}
"""`lr_scheduler_type` -> our options, from the keyword arguments that it takes out, all arguments, and the warmup."""

"""The `OptimizationConfig` of TensorFlow's model garden (tf-models-official) as options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.migration.overlaid_warmup import OverlaidWarmup
from capibara_keras.warning import warn

__all__ = ["from_tf_models"]

_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
_ADAM = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False}
_SGD = {"momentum": 0.0, "nesterov": False}
_LAMB = {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6}
_DECAYING = {"weight_decay_rate": 0.0, "exclude_from_weight_decay": None}
_IGNORED = ("name", "jit_compile")

_OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("sgd", _SGD | {"decay": 0.0}),
    "sgd_experimental": ("sgd", _SGD),
    "adam": ("adam", _ADAM),
    "adam_experimental": ("adam", _ADAM),
    "adamw": ("adamw", _ADAM | _DECAYING | {"include_in_weight_decay": None, "gradient_clip_norm": 1.0}),
    "adamw_experimental": ("adamw", _ADAM | {"weight_decay": 0.0, "global_clipnorm": 1.0}),
    "lamb": ("lamb", _LAMB | _DECAYING | {"exclude_from_layer_adaptation": None}),
    "rmsprop": ("rmsprop", {"rho": 0.9, "momentum": 0.0, "epsilon": 1e-7, "centered": False}),
    "adagrad": ("adagrad", {"initial_accumulator_value": 0.1, "epsilon": 1e-7}),
}
"""`optimizer.type` -> the algorithm, and the options of the garden's class with their defaults."""

_RENAMED = {
    "weight_decay_rate": "weight_decay",
    "exclude_from_weight_decay": "weight_decay_exclude",
    "gradient_clip_norm": "global_clipnorm",
}
_UNSUPPORTED = ("decay", "include_in_weight_decay", "exclude_from_layer_adaptation")

_SCHEDULES = {
    "stepwise": ("PiecewiseConstantDecay", ("boundaries", "values")),
    "exponential": ("ExponentialDecay", ("initial_learning_rate", "decay_steps", "decay_rate", "staircase")),
    "polynomial": (
        "PolynomialDecay",
        ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle"),
    ),
    "cosine": ("CosineDecay", ("initial_learning_rate", "decay_steps", "alpha")),
}
"""`learning_rate.type` -> Keras' schedule and its arguments; the defaults of both are the same."""


def from_tf_models(config: Any) -> dict[str, Any]:
    """Options for `Optimizer.from_config` from an `OptimizationConfig` of TensorFlow's model garden.

    Args:
        config: its dictionary (`as_dict()`): `optimizer`, `learning_rate`, `warmup`, `ema`.

    Raises:
        ConfigError: an optimizer, schedule or option that has no counterpart, or a name that does not exist.

    >>> import capibara_keras as ck
    >>> options = from_tf_models({
    ...     "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
    ...     "learning_rate": {"type": "stepwise", "stepwise": {"boundaries": [100], "values": [0.1, 0.01]}},
    ...     "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
    ... })
    >>> optimizer = ck.Optimizer.from_config(options)
    >>> [round(optimizer.get_learning_rate(step), 6) for step in (0, 5, 10, 101)]
    [0.0, 0.05, 0.1, 0.01]
    """
    config = config.as_dict() if hasattr(config, "as_dict") else config
    if not isinstance(config, Mapping):
        raise errors.ConfigError(
            f"from_tf_models: expected an OptimizationConfig or its dictionary, received {config!r}"
        )
    parts = ("optimizer", "learning_rate", "warmup", "ema")
    for name in config:
        if name not in parts:
            raise errors.unknown("part of OptimizationConfig", name, parts)
    options = _optimizer(*_chosen(config, "optimizer"))
    return options | {"learning_rate": _learning_rate(config)} | _average(config.get("ema"))


def _chosen(config: Mapping[str, Any], part: str) -> tuple[str, dict[str, Any]]:
    """The type that a part names, and the options that are given for it."""
    options = config.get(part) or {}
    kind = options.get("type") if isinstance(options, Mapping) else None
    if not isinstance(kind, str):
        raise errors.ConfigError(f"from_tf_models: {part} needs a 'type', received {options!r}")
    given = options.get(kind) or {}
    if not isinstance(given, Mapping):
        raise errors.ConfigError(f"from_tf_models: the options of {part} {kind!r} are a dictionary, received {given!r}")
    return kind, dict(given)


def _checked(given: Mapping[str, Any], allowed: Any, what: str) -> dict[str, Any]:
    for name in given:
        if name not in (*allowed, *_IGNORED):
            raise errors.unknown(f"option of {what}", name, allowed)
    return {name: value for name, value in given.items() if name not in _IGNORED}


def _optimizer(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    if kind not in _OPTIMIZERS:
        raise errors.unknown("optimizer type", kind, _OPTIMIZERS)
    algorithm, defaults = _OPTIMIZERS[kind]
    values = dict(defaults) | _checked(given, (*defaults, *_CLIPS), kind)
    for name in _UNSUPPORTED:
        if values.pop(name, None):
            raise errors.ConfigError(f"from_tf_models: {kind} has no {name} here; leave it out, or use groups")
    values["gradient_clip_norm"] = values.get("gradient_clip_norm") or None  # 0 is no clipping there
    options: dict[str, Any] = {"algorithm": algorithm}
    for name, value in values.items():
        if value is not None:
            options[_RENAMED.get(name, name)] = value
    return options


def _learning_rate(config: Mapping[str, Any]) -> Any:
    """A number, or the schedule with its warmup over it."""
    kind, given = _chosen(config, "learning_rate")
    offset = given.pop("offset", 0)
    if kind == "constant":
        rate = _checked(given, ("learning_rate",), kind).get("learning_rate", 0.1)
        base: Any = keras.optimizers.schedules.PiecewiseConstantDecay([1], [rate, rate])
    elif kind in _SCHEDULES:
        name, allowed = _SCHEDULES[kind]
        given = {k: v for k, v in _checked(given, allowed, kind).items() if v is not None}
        try:
            base = getattr(keras.optimizers.schedules, name)(**given)
        except TypeError as error:
            raise errors.ConfigError(f"from_tf_models: learning_rate {kind!r} is not complete: {error}") from error
        except ValueError as error:
            raise errors.ConfigError(f"from_tf_models: learning_rate {kind!r}: {error}") from error
    else:
        raise errors.unknown("learning_rate type", kind, [*_SCHEDULES, "constant"])
    warmup = config.get("warmup") or {}
    if isinstance(warmup, Mapping) and warmup.get("type") is None:
        return rate if kind == "constant" else OverlaidWarmup(base, offset=offset) if offset else base
    shape, given = _chosen(config, "warmup")
    if shape != "linear":
        raise errors.unknown("warmup type", shape, ["linear"])
    given = _checked(given, ("warmup_learning_rate", "warmup_steps"), "warmup")
    if given.get("warmup_steps") is None:
        raise errors.ConfigError("from_tf_models: warmup needs warmup_steps")
    return OverlaidWarmup(base, given["warmup_steps"], given.get("warmup_learning_rate", 0.0), offset)


def _average(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of the moving average of the weights."""
    if not given:
        return {}
    defaults = {"average_decay": 0.99, "trainable_weights_only": True, "start_step": 0, "dynamic_decay": True}
    values = defaults | _checked(given, (*defaults, *_CLIPS), "ema")
    if values["start_step"] or not values["trainable_weights_only"]:
        raise errors.ConfigError(
            "from_tf_models: the average begins with the first update here, and is of trainable weights: start_step=0, "
            f"trainable_weights_only=True; received {dict(given)!r}"
        )
    if values["dynamic_decay"]:
        warn("from_tf_models: the average has the same decay from the first update on here; dynamic_decay is left out")
    return {"use_ema": True, "ema_momentum": values["average_decay"]}

"""Hugging Face's `TrainingArguments` as options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from capibara_keras import errors
from capibara_keras.migration.hugging_face_schedules import schedule_options

__all__ = ["from_hugging_face"]

DEFAULTS = {
    "learning_rate": 5e-5,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "max_steps": -1,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": None,
    "warmup_ratio": None,
    "warmup_steps": 0,
    "optim": "adamw_torch",
    "optim_args": None,
    "gradient_accumulation_steps": 1,
    "adafactor": False,
}
"""Of `transformers.TrainingArguments`, for those that are about the update."""

NO_DECAY = ["bias|(?i:norm)|gamma$|beta$"]
"""Hugging Face's `Trainer` does not decay biases and norms; in Keras' names."""

_ADAMW = "adamw_torch adamw_torch_fused adamw_torch_xla adamw_torch_npu_fused adamw_apex_fused adamw_hf"
_ADAMW_8BIT = "adamw adamw_bnb adamw_torch paged_adamw"
_EIGHT_BITS = {"state_precision": "8bit"}
_ADAFACTOR = {"relative_step": False, "scale_parameter": False, "min_dim_size_to_factor": 1}
_OPTIMIZERS: dict[str, dict[str, Any]] = {
    **{name: {"algorithm": "adamw"} for name in (*_ADAMW.split(), "paged_adamw_32bit")},
    **{f"{name}_8bit": {"algorithm": "adamw"} | _EIGHT_BITS for name in _ADAMW_8BIT.split()},
    **{f"{name}_32bit": {"algorithm": "lion"} for name in ("lion", "paged_lion")},
    **{f"{name}_8bit": {"algorithm": "lion"} | _EIGHT_BITS for name in ("lion", "paged_lion")},
    "adafactor": {"algorithm": "adafactor"} | _ADAFACTOR,
    "sgd": {"algorithm": "sgd", "weight_decay_mode": "l2"},
    "adagrad": {"algorithm": "adagrad", "epsilon": 1e-10, "weight_decay_mode": "l2"},
    "rmsprop": {"algorithm": "rmsprop", "rho": 0.99, "epsilon": 1e-8, "weight_decay_mode": "l2"},
}
"""`optim` -> the algorithm, with the defaults of torch's class of that name."""

_ABOUT_THE_UPDATE = ("adam", "lr_", "learning_", "warmup", "weight_d", "max_g", "max_st", "gradient_acc", "optim")

_Given = Mapping[str, Any]


def from_hugging_face(arguments: Any) -> dict[str, Any]:
    """Options for `Optimizer.from_config` from Hugging Face's `TrainingArguments`.

    What is missing has the default of `TrainingArguments`. The total comes from `max_steps`; without it, from `fit`
    through a callback of this package. Arguments about other things (batches, files, logs) are left aside.

    Args:
        arguments: a `TrainingArguments`, or a dictionary with its names, as `to_dict` returns it.

    Raises:
        ConfigError: an optimizer or a schedule that has no counterpart, or a name about the update that does not exist.

    >>> import capibara_keras as ck
    >>> options = from_hugging_face({"learning_rate": 3e-4, "max_steps": 1000, "warmup_ratio": 0.03})
    >>> optimizer = ck.Optimizer.from_config(options)
    >>> round(optimizer.get_learning_rate(30), 8), optimizer.global_clipnorm
    (0.0003, 1.0)
    """
    arguments = _mapping(arguments)
    for name in arguments:
        if name not in (*DEFAULTS, "optim_target_modules") and _about_the_update(name):
            raise errors.unknown("training argument", name, DEFAULTS)
    given = DEFAULTS | {name: getattr(value, "value", value) for name, value in arguments.items()}
    decay = errors.number("weight_decay", given["weight_decay"], 0)
    options = {
        **_optimizer(given),
        "learning_rate": given["learning_rate"],
        "weight_decay": decay,
        **({"weight_decay_exclude": NO_DECAY} if decay else {}),
        "global_clipnorm": given["max_grad_norm"] or None,
        "gradient_accumulation_steps": given["gradient_accumulation_steps"],
    }
    return options | schedule_options(given)


def _mapping(arguments: Any) -> _Given:
    if isinstance(arguments, Mapping):
        return arguments
    if hasattr(arguments, "to_dict"):
        return dict(arguments.to_dict())
    if not hasattr(arguments, "__dict__"):
        raise errors.ConfigError(
            f"from_hugging_face: expected a TrainingArguments or a dictionary with its names, received {arguments!r}"
        )
    return vars(arguments)


def _about_the_update(name: str) -> bool:
    """Whether a name that is not in `DEFAULTS` was meant to be: it begins like one, or is nearly one."""
    return name.startswith(_ABOUT_THE_UPDATE) or bool(difflib.get_close_matches(name, DEFAULTS, cutoff=0.85))


def _optimizer(given: _Given) -> dict[str, Any]:
    name = "adafactor" if given["adafactor"] else given["optim"]
    if name not in _OPTIMIZERS:
        raise errors.unknown("optim", name, _OPTIMIZERS)
    if given["optim_args"]:
        raise errors.ConfigError(
            f"from_hugging_face: optim_args={given['optim_args']!r} is not understood; leave it out"
        )
    options = dict(_OPTIMIZERS[name])
    if options["algorithm"] in ("adamw", "lion"):
        options |= {"beta_1": given["adam_beta1"], "beta_2": given["adam_beta2"]}
    if options["algorithm"] == "adamw":
        options["epsilon"] = given["adam_epsilon"]
    return options

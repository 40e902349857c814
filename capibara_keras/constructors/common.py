"""What the classes of all algorithms share: their options, and how arguments become options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypedDict

from capibara_keras import config, errors
from capibara_keras.optimizer import Optimizer

__all__ = ["CommonOptions", "KerasOptions", "Named", "arguments"]


class CommonOptions(TypedDict, total=False):
    """Keyword options beyond Keras' that every algorithm takes; see `OptimizerConfig`.

    Options of a schedule (`scheduler_type`, `warmup_steps`, …, see `SchedulePlan`) are accepted too.

    >>> sorted(CommonOptions.__annotations__)[:2]
    ['accumulator', 'adaptive_clipping']
    """

    accumulator: bool
    adaptive_clipping: dict[str, Any]
    cautious: bool
    clip_coeff: float
    clip_method: str
    clip_output_layer: bool
    clip_value: float
    defer_clip_until_accumulation: bool
    differential_learning_rates: dict[str, float]
    gradient_centralization: bool
    groups: list[Any]
    kahan_summation: bool
    layer_depths: dict[str, int]
    layer_wise_lr_decay: float
    lookahead_alpha: float
    lookahead_steps: int
    loss_divided: bool
    normalize_gradients: bool
    per_parameter_clipping: bool
    remainder: str
    shard_state: bool
    skip_spikes: float
    state_precision: str
    sync_batchnorm: bool
    weight_decay_mode: str
    weight_decay_exclude: list[str]
    nonfinite: str
    maximize: bool
    foreach: bool
    statistics_every: int
    differentiable: bool
    jit_compile: bool
    no_deprecation_warning: bool
    use_scheduler: bool


class KerasOptions(CommonOptions, total=False):
    """Keras' options, as keywords, for algorithms that Keras does not have.

    >>> "global_clipnorm" in KerasOptions.__annotations__
    True
    """

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class Named(Optimizer):
    """An optimizer whose class is its algorithm.

    >>> import capibara_keras as ck
    >>> "algorithm" in ck.Lion().get_config()
    False
    """

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments, as plain data."""
        options = super().get_config()
        del options["algorithm"]
        return options

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """As `Optimizer.from_config`; `algorithm`, if given, must be this one."""
        named = dict(config).pop("algorithm", cls.__name__.lower())
        if named != cls.__name__.lower():
            raise errors.ConfigError(f"{cls.__name__}.from_config: the options name another algorithm, {named!r}")
        return super().from_config({k: v for k, v in config.items() if k != "algorithm"}, custom_objects)


def arguments(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """A constructor's arguments as options. One given under another spelling replaces the default."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
    options = config.canonical(given["options"])
    untouched = {name for name in options if name in defaults and given[name] == defaults[name]}
    return config.canonical(
        {name: given[name] for name in defaults if name not in untouched} | _apart(options, defaults, untouched)
    )


def _apart(options: Mapping[str, Any], defaults: Mapping[str, Any], untouched: set[str]) -> dict[str, Any]:
    """`options`, refusing those that an explicit argument contradicts."""
    for name in options:
        if name in defaults and name not in untouched:
            raise errors.ConfigError(f"{name} was given twice, under two spellings; give it once")
    return dict(options)

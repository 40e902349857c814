"""One class per algorithm, with Keras' names, positions and defaults, so that swapping the import is enough."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import keras

from capibara_keras import config, errors
from capibara_keras.optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamW", "CommonOptions"]


class CommonOptions(TypedDict, total=False):
    """Keyword options beyond Keras' that every algorithm takes; see `OptimizerConfig`.

    Options of a schedule (`scheduler_type`, `warmup_steps`, …, see `SchedulePlan`) are accepted too.

    >>> sorted(CommonOptions.__annotations__)[:2]
    ['accumulator', 'adaptive_clipping']
    """

    accumulator: bool
    adaptive_clipping: dict[str, Any]
    clip_coeff: float
    clip_method: str
    clip_output_layer: bool
    clip_value: float
    defer_clip_until_accumulation: bool
    differential_learning_rates: dict[str, float]
    groups: list[Any]
    layer_depths: dict[str, int]
    layer_wise_lr_decay: float
    loss_divided: bool
    normalize_gradients: bool
    per_parameter_clipping: bool
    remainder: str
    shard_state: bool
    skip_spikes: float
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


class _AdamOptions(CommonOptions, total=False):
    correct_bias: bool


class _SGDOptions(CommonOptions, total=False):
    dampening: float


class _Named(Optimizer):
    """An optimizer whose class is its algorithm."""

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


@keras.saving.register_keras_serializable(package="capibara_keras")
class Adam(_Named):
    """Adam (Kingma & Ba 2015), as `keras.optimizers.Adam` takes it.

        w ← w - rate m̂ / (sqrt(v̂) + epsilon)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        beta_1, beta_2: decay rates of the moments, in [0, 1).
        epsilon: > 0, outside the square root, after bias correction (Keras has it before).
        amsgrad: use the largest second moment so far.
        weight_decay: `None`, or the decay rate; decoupled unless `weight_decay_mode` says otherwise.
        clipnorm, clipvalue, global_clipnorm: limit of each variable's norm, of each entry, or of the norm over
            all; at most one.
        use_ema, ema_momentum, ema_overwrite_frequency: as in Keras, counted in updates.
        loss_scale_factor: as in Keras.
        gradient_accumulation_steps: micro-batches per update.
        name: as in Keras.
        **options: see `CommonOptions`; also `correct_bias=False`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.Adam(learning_rate=0.1).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 6))
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[_AdamOptions],
    ) -> None:
        super().__init__("adam", **_arguments(Adam, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class AdamW(_Named):
    """AdamW (Loshchilov & Hutter 2019), as `keras.optimizers.AdamW` takes it: Adam with decay by default.

        w ← w - rate (m̂ / (sqrt(v̂) + epsilon) + weight_decay w)

    Args:
        learning_rate: number, schedule, or callable without arguments.
        weight_decay: default 0.004.
        beta_1, beta_2, epsilon, amsgrad, …: as in `Adam`.

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.AdamW(learning_rate=0.1, weight_decay=0.5).apply([keras.ops.array([2.0])], [w])
    >>> print(round(float(w[0]), 6))
    0.85
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[_AdamOptions],
    ) -> None:
        super().__init__("adamw", **_arguments(AdamW, locals()))


@keras.saving.register_keras_serializable(package="capibara_keras")
class SGD(_Named):
    """Gradient descent with momentum (Sutskever et al. 2013), as `keras.optimizers.SGD` takes it.

        b ← momentum b + (1 - dampening) g;  w ← w - rate b

    Args:
        learning_rate: number, schedule, or callable without arguments.
        momentum: in [0, 1); 0 keeps no state.
        nesterov: step along g + momentum b.
        weight_decay, …: as in `Adam`; also `dampening` in [0, 1].

    Raises:
        ConfigError: a bad option.

    >>> import capibara_keras as ck, keras
    >>> w = keras.Variable([1.0])
    >>> ck.SGD(learning_rate=0.25).apply([keras.ops.array([2.0])], [w])
    >>> float(w[0])
    0.5
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Unpack[_SGDOptions],
    ) -> None:
        super().__init__("sgd", **_arguments(SGD, locals()))


def _arguments(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
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

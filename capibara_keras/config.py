"""The configuration of an optimizer, and the one door through which dictionaries and aliases enter."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np

from capibara_keras import clip, errors
from capibara_keras.clip import ClipByGlobalNorm, ClipByNorm, ClipByValue, ClipPolicy, NoClip
from capibara_keras.groups import Group, check_pattern
from capibara_keras.rules import RULES, STATE_PRECISIONS, UpdateRule, modified
from capibara_keras.schedules import OPTION_NAMES as SCHEDULE_OPTIONS
from capibara_keras.schedules import SchedulePlan

__all__ = ["ALIASES", "OptimizerConfig", "Part", "parse"]

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any]

ALIASES = {
    "beta1": "beta_1",
    "beta2": "beta_2",
    "eps": "epsilon",
    "lr": "learning_rate",
    "gradient_clip_norm": "global_clipnorm",
    "accumulation_steps": "gradient_accumulation_steps",
    "scale_loss": "loss_divided",
}
"""Other spellings -> Keras spelling, or where Keras has a method of that name, another. The schedules' own are in
`capibara_keras.schedules`."""

CLIPS: dict[str, type] = {"clipnorm": ClipByNorm, "clipvalue": ClipByValue, "global_clipnorm": ClipByGlobalNorm}
"""Keras' options -> clip policies."""

CLIPPING = (
    "clip_method",
    "clip_value",
    "adaptive_clipping",
    "per_parameter_clipping",
    "clip_coeff",
    "clip_output_layer",
)
"""Options of `configure_gradient_clipping`."""

ACCUMULATION = (
    "gradient_accumulation_steps",
    "normalize_gradients",
    "loss_divided",
    "defer_clip_until_accumulation",
    "sync_batchnorm",
    "remainder",
    "nonfinite",
)
"""Options of `configure_gradient_accumulation`."""

MODIFIERS = (
    "state_precision",
    "kahan_summation",
    "cautious",
    "gradient_centralization",
    "lookahead_steps",
    "lookahead_alpha",
)
"""Options of `rules.modified`."""

WEIGHT_DECAY_MODES = ("decoupled", "independent", "corrected", "l2")
NONFINITE_POLICIES = ("skip", "drop_micro_batch", "raise", "propagate")
REMAINDERS = ("flush", "carry")


class Part(NamedTuple):
    """Algorithm and clipping of one group; `clip` is `None` where group 0's acts."""

    rule: UpdateRule
    clip: ClipPolicy | None
    hyperparameters: dict[str, float]


@dataclass(frozen=True)
class OptimizerConfig:
    """Everything that can be chosen about an optimizer, validated.

    Args:
        rule: the algorithm and its hyperparameters.
        learning_rate: the rate, or the peak of `schedule`; or a Keras schedule; or a callable without arguments.
        schedule: a schedule as options, completed when its steps are known.
        use_scheduler: False keeps `schedule` but does not use it.
        weight_decay: `None` for none.
        weight_decay_mode: "decoupled" (rate · decay · w), "independent" (not scaled by the peak of the rate,
            only by its schedule), "corrected" (rate² / peak · decay · w: Defazio 2025, for weights under a
            normalisation, whose gradients else grow at the end of training), or "l2" (added to the gradient).
        weight_decay_exclude: regular expressions, searched in variable paths.
        clip: the clip policy; `clipping` the options of `configure_gradient_clipping` it came from, if it did.
        skip_spikes: skip an update whose gradient norm is this many standard deviations above the mean of the
            recent ones; `None` for never.
        use_ema, ema_momentum, ema_overwrite_frequency: as in Keras, counted in updates.
        accumulation_steps: micro-batches per update.
        accumulator: keep a window also while one micro-batch fills it, so that the number can change later.
        normalize_gradients: the mean over micro-batches; False: their sum.
        loss_divided: the loss arrives divided by the number of micro-batches (by `scale_loss`, or by hand).
        defer_clip_until_accumulation: clip the accumulated gradient; False: each micro-batch's.
        sync_batchnorm: let the callback adjust `BatchNormalization` layers; see `sync_batchnorm`.
        remainder: at the end of `fit`'s data "flush" a window that is not full, or "carry" it.
        loss_scale_factor: what the loss is multiplied by, and the gradient divided by.
        nonfinite: "skip" the update of a gradient with NaN or Inf; "drop_micro_batch" leaves only the bad
            micro-batch out of its window; "raise" skips and raises; "propagate" lets it through.
        layer_wise_lr_decay: d: the rate is multiplied by d^(deepest - depth); `layer_depths` gives depths by
            pattern, else they come from the paths.
        differential_learning_rates: pattern -> multiplier of the rate.
        groups: see `Group`.
        state_precision: "float32"; "bfloat16" (stochastically rounded, half the bytes); "8bit" (a quarter; `adam`,
            `adamw`, `lion`).
        kahan_summation: bfloat16 variables keep what rounding takes off their updates, in 2 bytes per entry.
        cautious: take only those entries of a step that descend along the present gradient.
        gradient_centralization: take the mean of each output unit off the gradients of matrices and kernels.
        lookahead_steps, lookahead_alpha: every so many updates, go back to this part of the way; `None` for never.
        maximize: ascend instead of descend; decay still shrinks the weights.
        foreach: variables share compiled steps; False: one per variable.
        statistics_every: measure the norms of parameters and of their change at every so many updates, for all
            variables, and in the first 20; `None` for never. The monitoring callbacks set it.
        differentiable: allow `Optimizer.functional_step`.
        shard_state: on the JAX backend, spread the state over the data-parallel devices (ZeRO stage 1).
        jit_compile: compile the update with XLA, also where the model is not.
        no_deprecation_warning: kept, without effect.

    >>> parse({"algorithm": "adam", "beta1": 0.8}).rule.beta_1
    0.8
    """

    rule: UpdateRule
    learning_rate: Rate
    schedule: SchedulePlan | None = None
    use_scheduler: bool = False
    weight_decay: float | None = None
    weight_decay_mode: str = "decoupled"
    weight_decay_exclude: tuple[str, ...] = ()
    clip: ClipPolicy = field(default_factory=NoClip)
    clipping: Mapping[str, Any] = field(default_factory=dict)
    skip_spikes: float | None = None
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    accumulation_steps: int = 1
    accumulator: bool = False
    normalize_gradients: bool = True
    loss_divided: bool = False
    defer_clip_until_accumulation: bool = True
    sync_batchnorm: bool = False
    remainder: str = "flush"
    loss_scale_factor: float | None = None
    nonfinite: str = "skip"
    layer_wise_lr_decay: float | None = None
    layer_depths: Mapping[str, int] | None = None
    differential_learning_rates: Mapping[str, float] | None = None
    groups: tuple[Group, ...] = ()
    state_precision: str = "float32"
    kahan_summation: bool = False
    cautious: bool = False
    gradient_centralization: bool = False
    lookahead_steps: int | None = None
    lookahead_alpha: float = 0.5
    maximize: bool = False
    foreach: bool = True
    statistics_every: int | None = None
    differentiable: bool = False
    shard_state: bool = False
    jit_compile: bool = True
    no_deprecation_warning: bool = False

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            errors.number("learning_rate", self.learning_rate, 0)
        if self.schedule is not None and self.use_scheduler and callable(self.learning_rate):
            raise errors.ConfigError(
                f"learning_rate={self.learning_rate!r} is a schedule already, and schedule options were given too: "
                f"{self.schedule.to_options()}. Give the rate's peak as a number, or leave the options out"
            )
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if option.name in _CHECKS and (value is not None or option.default is not None):
                object.__setattr__(self, option.name, _CHECKS[option.name](option.name, value))
        steps = errors.integer("gradient_accumulation_steps", self.accumulation_steps, 1)
        object.__setattr__(self, "accumulation_steps", steps)
        assert self.parts  # raises where a modifier does not suit a rule
        for group in self.groups:
            if group.clip is not None and group.clip.history_length:
                raise errors.ConfigError(
                    f"group {group.pattern!r}: adaptive clipping is for all variables, not for one group"
                )

    @property
    def algorithm(self) -> str:
        """The rule's name in `RULES`."""
        return _name_of(self.rule)

    @property
    def accumulates(self) -> bool:
        """Whether an accumulator is kept."""
        return self.accumulation_steps > 1 or self.accumulator

    @property
    def clips(self) -> bool:
        """Whether any gradient may be clipped."""
        return any(part.clip is not None and not isinstance(part.clip, NoClip) for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Group 0, for all variables that no other one claims, and the groups."""
        modifiers = {name: getattr(self, name) for name in MODIFIERS}
        parts = [_part(modified(self.rule, **modifiers), self.clip, self.weight_decay)]
        for group in self.all_groups:
            decay = self.weight_decay if group.weight_decay is None else group.weight_decay
            parts.append(_part(modified(group.rule or self.rule, **modifiers), group.clip, decay))
        return tuple(parts)

    @property
    def all_groups(self) -> tuple[Group, ...]:
        """The groups, and behind them the one that the algorithm leaves to another."""
        companion = self.rule.companion
        return self.groups if companion is None else (*self.groups, Group(companion[0], rule=companion[1]))

    @property
    def shared(self) -> dict[str, float]:
        """Hyperparameters that no group owns."""
        values = {"one_minus_ema_momentum": 1 - self.ema_momentum} if self.use_ema else {}
        return values | ({"spike_sigma": self.skip_spikes} if self.skip_spikes is not None else {})

    @property
    def packed_names(self) -> list[str]:
        """The entries of the packed variable."""
        return [name for part in self.parts for name in part.hyperparameters] + list(self.shared)

    @property
    def packed_values(self) -> list[float]:
        """The numbers that can change without a new trace, in the order of `packed_names`."""
        return [value for part in self.parts for value in part.hyperparameters.values()] + list(self.shared.values())

    def to_options(self) -> dict[str, Any]:
        """A flat dictionary in Keras' spelling; `parse` gives this configuration back."""
        options: dict[str, Any] = {"algorithm": self.algorithm, "learning_rate": self.learning_rate}
        options |= dataclasses.asdict(self.rule)
        options |= {name: getattr(self, name) for name in _PLAIN}
        for name, kind in CLIPS.items():
            chosen = type(self.clip) is kind and not self.clipping
            options[name] = self.clip.hyperparameters["clip_limit"] if chosen else None
        options |= dict(self.clipping)
        options["weight_decay_exclude"] = list(self.weight_decay_exclude)
        options["gradient_accumulation_steps"] = self.accumulation_steps if self.accumulation_steps > 1 else None
        options["groups"] = [_group_options(group) for group in self.groups]
        return options | (self.schedule.to_options() if self.schedule is not None else {})


_SPECIAL = (
    "rule",
    "learning_rate",
    "schedule",
    "clip",
    "clipping",
    "accumulation_steps",
    "weight_decay_exclude",
    "groups",
)
_PLAIN = tuple(f.name for f in dataclasses.fields(OptimizerConfig) if f.name not in _SPECIAL)
_OWN = (
    "algorithm",
    "learning_rate",
    "weight_decay_exclude",
    "gradient_accumulation_steps",
    "groups",
    *CLIPS,
    *CLIPPING,
    *_PLAIN,
)


def _by_pattern(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """The check of a dictionary from patterns to what `check` allows."""

    def check_all(name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise errors.ConfigError(f"{name}: expected a dictionary from patterns to numbers, received {value!r}")
        return {check_pattern(p, name): check(f"{name}[{p!r}]", x) for p, x in value.items()}

    return check_all


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
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


def parse(options: Mapping[str, Any]) -> OptimizerConfig:
    """The configuration that flat options describe.

    Args:
        options: any names of the table in the docs; aliases are translated here and nowhere else.

    Raises:
        ConfigError: an unknown name (with the nearest valid one), an option that the algorithm does not have,
            a wrong type or range, or two options that contradict each other.

    >>> config = parse({"algorithm": "sgd", "learning_rate": 0.1, "momentum": 0.9})
    >>> parse(config.to_options()) == config
    True
    """
    given = canonical(options)
    rule, fields = _rule(given)
    schedule = {name: given.pop(name) for name in list(given) if name in SCHEDULE_OPTIONS}
    policy, clipping = _clip(given)
    _refuse_foreign(given, _name_of(rule), fields)
    learning_rate = given.pop("learning_rate", None)
    use_scheduler = given.pop("use_scheduler", None)
    exclude = given.pop("weight_decay_exclude", None)
    accumulation = given.pop("gradient_accumulation_steps", None)
    groups = given.pop("groups", None)
    if groups is not None and not isinstance(groups, (list, tuple)):
        raise errors.ConfigError(f"groups: expected a list of dictionaries, received {groups!r}")
    return OptimizerConfig(
        rule=rule,
        learning_rate=rule.default_learning_rate if learning_rate is None else rate(learning_rate),
        schedule=SchedulePlan.from_options(schedule) if schedule or use_scheduler else None,
        use_scheduler=bool(schedule) if use_scheduler is None else use_scheduler,
        clip=policy,
        clipping=clipping,
        weight_decay_exclude=patterns(exclude or ()),
        accumulation_steps=1 if accumulation is None else accumulation,
        groups=tuple(_group(group) for group in groups or ()),
        **given,
    )


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with aliases and NumPy scalars translated; two spellings of one option must agree."""
    seen: dict[str, str] = {}
    result: dict[str, Any] = {}
    for name, value in options.items():
        key, value = ALIASES.get(name, name), value.item() if isinstance(value, np.generic) else value
        if key in result and result[key] != value:
            raise errors.ConfigError(
                f"{seen[key]}={result[key]!r} and {name}={value!r} are the same option with different values; give one"
            )
        seen[key], result[key] = name, value
    return result


def rate(value: Any) -> Rate:
    """A learning rate as given by a user: a number of any kind, a schedule, a serialised schedule, a callable."""
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, str):
        raise errors.ConfigError(f"learning_rate: expected a number, a schedule or a callable, received {value!r}")
    if callable(value):
        return value
    if getattr(value, "shape", None) == ():
        value = float(value)
    return errors.number("learning_rate", value, 0)


def idle_clipping(configuration: OptimizerConfig) -> list[str]:
    """A line for each clipping option that has no effect in the chosen method."""
    effective = clip.to_options(configuration.clip)
    kept = [name for name in configuration.clipping if name not in effective and name != "clip_method"]
    method = effective.get("clip_method", "no clipping")
    return [f"{name}={configuration.clipping[name]!r} has no effect: clip_method is {method!r}" for name in kept]


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


def _rule(given: dict[str, Any]) -> tuple[UpdateRule, list[str]]:
    """The rule that `algorithm` and its hyperparameters name, taken out of `given`, and its options."""
    algorithm = given.pop("algorithm", "adam")
    if not isinstance(algorithm, str) or algorithm not in RULES:
        raise errors.unknown("algorithm", algorithm, RULES)
    kind = RULES[algorithm]
    fields = [f.name for f in dataclasses.fields(kind)]
    return kind(**{name: given.pop(name) for name in fields if name in given}), fields


def _name_of(rule: UpdateRule) -> str:
    return next(name for name, kind in RULES.items() if type(rule) is kind)


def _part(rule: UpdateRule, policy: ClipPolicy | None, weight_decay: float | None) -> Part:
    values = dict(rule.hyperparameters)
    if weight_decay is not None:
        values["weight_decay"] = weight_decay
    return Part(rule, policy, values | (policy.hyperparameters if policy is not None else {}))


def _clip(given: dict[str, Any]) -> tuple[ClipPolicy, dict[str, Any]]:
    """The clip policy, in Keras' words or in those of `configure_gradient_clipping`, taken out of `given`."""
    limits = {name: given.pop(name, None) for name in CLIPS}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    clipping = {name: given.pop(name) for name in CLIPPING if name in given}
    clipping = {name: value for name, value in clipping.items() if value is not None}
    if len(limits) + bool(clipping) > 1:
        named = " and ".join(f"{name}={value!r}" for name, value in (limits | clipping).items())
        raise errors.ConfigError(f"{named} exclude each other: give one way of clipping")
    for name, limit in limits.items():
        return CLIPS[name](errors.number(name, limit, 0, open_low=True)), {}
    return clip.from_options(clipping), clipping


def _group(options: Any) -> Group:
    """A group from a dictionary: `pattern`, and any of `rate`, `weight_decay`, `algorithm`, its hyperparameters,
    and clipping."""
    if isinstance(options, Group):
        return options
    if not isinstance(options, Mapping) or "pattern" not in options:
        raise errors.ConfigError(f"groups: expected dictionaries with a 'pattern', received {options!r}")
    given = canonical(options)
    pattern = given.pop("pattern")
    rule, fields = _rule(given) if "algorithm" in given else (None, [])
    policy, _ = _clip(given)
    allowed = ("pattern", "rate", "weight_decay", "algorithm", *fields, *CLIPS, *CLIPPING)
    for name in given:
        if name not in ("rate", "weight_decay"):
            raise errors.unknown(f"option of group {pattern!r}", name, allowed)
    return Group(pattern, rule=rule, clip=None if isinstance(policy, NoClip) else policy, **given)


def _group_options(group: Group) -> dict[str, Any]:
    options: dict[str, Any] = {"pattern": group.pattern, "rate": group.rate, "weight_decay": group.weight_decay}
    if group.rule is not None:
        options |= {"algorithm": _name_of(group.rule)} | dataclasses.asdict(group.rule)
    return options | (clip.to_options(group.clip) if group.clip is not None else {})


def _refuse_foreign(given: Mapping[str, Any], algorithm: str, fields: list[str]) -> None:
    """Raise for options that do not exist, or that belong to another algorithm."""
    for name in given:
        if name not in _OWN:
            owners = [key for key, rule in RULES.items() if name in {f.name for f in dataclasses.fields(rule)}]
            if owners:
                raise errors.ConfigError(
                    f"option {name!r} belongs to algorithm {', '.join(owners)}; {algorithm!r} has {', '.join(fields)}"
                )
            raise errors.unknown("option", name, [*_OWN, *fields, *ALIASES, *SCHEDULE_OPTIONS])

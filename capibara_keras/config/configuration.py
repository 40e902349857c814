"""The configuration of an optimizer: everything that can be chosen, validated once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from capibara_keras import errors
from capibara_keras.clip import ClipPolicy, NoClip
from capibara_keras.config.checks import CHECKS, Rate
from capibara_keras.config.clipping import clip_options_of
from capibara_keras.config.options import CLIPS, MODIFIERS
from capibara_keras.groups import Group
from capibara_keras.rules import RULES, UpdateRule, modified
from capibara_keras.schedules import SchedulePlan

__all__ = ["PLAIN", "OptimizerConfig", "Part", "idle_clipping", "name_of"]


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
        weight_decay_exclude: regular expressions, searched in variable paths; `"rank<=1"` stands for all vectors and
            scalars.
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
        recipe: name and arguments of the recipe that the options come from; `explain` reads it.

    >>> from capibara_keras.config import parse
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
    recipe: Mapping[str, Any] | None = None

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
            if option.name in CHECKS and (value is not None or option.default is not None):
                object.__setattr__(self, option.name, CHECKS[option.name](option.name, value))
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
        return name_of(self.rule)

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
        options |= {name: getattr(self, name) for name in PLAIN if name != "recipe" or self.recipe is not None}
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


PLAIN = tuple(f.name for f in dataclasses.fields(OptimizerConfig) if f.name not in _SPECIAL)
"""Fields whose option has the same name and value."""


def idle_clipping(configuration: OptimizerConfig) -> list[str]:
    """A line for each clipping option that has no effect in the chosen method."""
    effective = clip_options_of(configuration.clip)
    kept = [name for name in configuration.clipping if name not in effective and name != "clip_method"]
    method = effective.get("clip_method", "no clipping")
    return [f"{name}={configuration.clipping[name]!r} has no effect: clip_method is {method!r}" for name in kept]


def name_of(rule: UpdateRule) -> str:
    """The name of a rule in `RULES`."""
    return next(name for name, kind in RULES.items() if type(rule) is kind)


def _part(rule: UpdateRule, policy: ClipPolicy | None, weight_decay: float | None) -> Part:
    values = dict(rule.hyperparameters)
    if weight_decay is not None:
        values["weight_decay"] = weight_decay
    return Part(rule, policy, values | (policy.hyperparameters if policy is not None else {}))


def _group_options(group: Group) -> dict[str, Any]:
    options: dict[str, Any] = {"pattern": group.pattern, "rate": group.rate, "weight_decay": group.weight_decay}
    if group.rule is not None:
        options |= {"algorithm": name_of(group.rule)} | dataclasses.asdict(group.rule)
    return options | (clip_options_of(group.clip) if group.clip is not None else {})

"""The configuration of an optimizer, and the one door through which dictionaries and aliases enter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from capibara_keras import errors
from capibara_keras.clip import ClipByGlobalNorm, ClipByNorm, ClipByValue, ClipPolicy, NoClip
from capibara_keras.rules import RULES, UpdateRule
from capibara_keras.schedules import OPTION_NAMES as SCHEDULE_OPTIONS
from capibara_keras.schedules import SchedulePlan

__all__ = ["ALIASES", "OptimizerConfig", "parse"]

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule | Callable[[], Any]

ALIASES = {
    "beta1": "beta_1",
    "beta2": "beta_2",
    "eps": "epsilon",
    "lr": "learning_rate",
    "gradient_clip_norm": "global_clipnorm",
    "accumulation_steps": "gradient_accumulation_steps",
}
"""Other spellings -> Keras spelling. The schedules' own are in `capibara_keras.schedules`."""

CLIPS: dict[str, type] = {"clipnorm": ClipByNorm, "clipvalue": ClipByValue, "global_clipnorm": ClipByGlobalNorm}
"""Keras' options -> clip policies."""

WEIGHT_DECAY_MODES = ("decoupled", "independent", "l2")
NONFINITE_POLICIES = ("skip", "raise", "propagate")


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
            only by its schedule), or "l2" (added to the gradient).
        weight_decay_exclude: regular expressions, searched in variable paths.
        clip: the clip policy.
        use_ema, ema_momentum, ema_overwrite_frequency: as in Keras, counted in updates.
        accumulation_steps: micro-batches per update.
        loss_scale_factor: what the loss is multiplied by, and the gradient divided by.
        nonfinite: "skip" the update of a gradient with NaN or Inf, skip it and "raise", or "propagate" it.
        maximize: ascend instead of descend; decay still shrinks the weights.
        foreach: one compiled step for all variables; False: one per variable.
        differentiable: whether `Optimizer.functional_step` may be differentiated through.
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
    clip: ClipPolicy = dataclasses.field(default_factory=NoClip)
    use_ema: bool = False
    ema_momentum: float = 0.99
    ema_overwrite_frequency: int | None = None
    accumulation_steps: int = 1
    loss_scale_factor: float | None = None
    nonfinite: str = "skip"
    maximize: bool = False
    foreach: bool = True
    differentiable: bool = False
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
        if self.weight_decay is not None:
            errors.number("weight_decay", self.weight_decay, 0)
        errors.choice("weight_decay_mode", self.weight_decay_mode, WEIGHT_DECAY_MODES)
        errors.number("ema_momentum", self.ema_momentum, 0, 1)
        if self.ema_overwrite_frequency is not None:
            errors.integer("ema_overwrite_frequency", self.ema_overwrite_frequency, 1)
        errors.integer("gradient_accumulation_steps", self.accumulation_steps, 1)
        if self.loss_scale_factor is not None:
            errors.number("loss_scale_factor", self.loss_scale_factor, 0, open_low=True)
        errors.choice("nonfinite", self.nonfinite, NONFINITE_POLICIES)
        for name in ("use_scheduler", "use_ema", "maximize", "foreach", "differentiable", "jit_compile"):
            errors.boolean(name, getattr(self, name))

    @property
    def algorithm(self) -> str:
        """The rule's name in `RULES`."""
        return next(name for name, rule in RULES.items() if type(self.rule) is rule)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """The numbers that can change without a new trace, by name, in the order of the packed variable.

        Decay and clip limit have a place in it also where there are none, under a name that nothing reads: so
        the variable keeps its size when they are switched on or off.
        """
        values = dict(self.rule.hyperparameters)
        values["no_weight_decay" if self.weight_decay is None else "weight_decay"] = self.weight_decay or 0.0
        values["no_clip_limit" if self.clip.limit is None else "clip_limit"] = self.clip.limit or 0.0
        if self.use_ema:
            values["one_minus_ema_momentum"] = 1 - self.ema_momentum
        return values

    def to_options(self) -> dict[str, Any]:
        """A flat dictionary in Keras' spelling; `parse` gives this configuration back."""
        options: dict[str, Any] = {"algorithm": self.algorithm, "learning_rate": self.learning_rate}
        options |= dataclasses.asdict(self.rule)  # type: ignore[call-overload]
        options |= {name: getattr(self, name) for name in _PLAIN}
        options |= {name: self.clip.limit if type(self.clip) is kind else None for name, kind in CLIPS.items()}
        options["weight_decay_exclude"] = list(self.weight_decay_exclude)
        options["gradient_accumulation_steps"] = self.accumulation_steps if self.accumulation_steps > 1 else None
        return options | (self.schedule.to_options() if self.schedule is not None else {})


_PLAIN = tuple(
    field.name
    for field in dataclasses.fields(OptimizerConfig)
    if field.name
    not in ("rule", "learning_rate", "schedule", "clip", "accumulation_steps", "weight_decay_exclude")
)
_OWN = ("algorithm", "learning_rate", "weight_decay_exclude", "gradient_accumulation_steps", *CLIPS, *_PLAIN)


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
    algorithm = given.pop("algorithm", "adam")
    if algorithm not in RULES:
        raise errors.unknown("algorithm", algorithm, RULES)
    rule = RULES[algorithm]
    fields = [field.name for field in dataclasses.fields(rule)]
    arguments = {name: given.pop(name) for name in fields if name in given}
    schedule = {name: given.pop(name) for name in list(given) if name in SCHEDULE_OPTIONS}
    clips = {name: given.pop(name, None) for name in CLIPS}
    _refuse_foreign(given, algorithm, fields)
    learning_rate = given.pop("learning_rate", None)
    use_scheduler = given.pop("use_scheduler", None)
    exclude = given.pop("weight_decay_exclude", None)
    accumulation = given.pop("gradient_accumulation_steps", None)
    return OptimizerConfig(
        rule=rule(**arguments),
        learning_rate=rule.default_learning_rate if learning_rate is None else rate(learning_rate),
        schedule=SchedulePlan.from_options(schedule) if schedule or use_scheduler else None,
        use_scheduler=bool(schedule) if use_scheduler is None else use_scheduler,
        clip=_clip(clips),
        weight_decay_exclude=patterns(exclude or ()),
        accumulation_steps=1 if accumulation is None else accumulation,
        **given,
    )


def canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with aliases translated; two spellings of one option must agree."""
    seen: dict[str, str] = {}
    result: dict[str, Any] = {}
    for name, value in options.items():
        key = ALIASES.get(name, name)
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
    if isinstance(value, str) or callable(value):
        if callable(value):
            return value
        raise errors.ConfigError(f"learning_rate: expected a number, a schedule or a callable, received {value!r}")
    if getattr(value, "shape", None) == ():
        value = float(value)
    return errors.number("learning_rate", value, 0)


def patterns(value: str | Iterable[str]) -> tuple[str, ...]:
    """Path patterns as a tuple without repetitions."""
    values = (value,) if isinstance(value, str) else tuple(value)
    for item in values:
        if not isinstance(item, str):
            raise errors.ConfigError(f"weight_decay_exclude: expected patterns of variable paths, received {item!r}")
    return tuple(dict.fromkeys(values))


def _clip(limits: Mapping[str, float | None]) -> ClipPolicy:
    given = {name: limit for name, limit in limits.items() if limit is not None}
    if len(given) > 1:
        named = " and ".join(f"{name}={limit!r}" for name, limit in given.items())
        raise errors.ConfigError(f"{named} exclude each other: give one way of clipping")
    for name, limit in given.items():
        return CLIPS[name](errors.number(name, limit, 0, open_low=True))
    return NoClip()


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

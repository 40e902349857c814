"""Schedule options given as flat dictionaries: the one door from names and aliases to a schedule."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any

from capibara_keras.errors import ConfigError, choice, number, unknown
from capibara_keras.schedules.arguments import ARGUMENTS, check
from capibara_keras.schedules.base import WarmupSchedule
from capibara_keras.schedules.table import SCHEDULES

__all__ = ["ALIASES", "OPTION_NAMES", "SchedulePlan"]

ALIASES = {
    "lr_scheduler_type": "scheduler_type",
    "max_steps": "total_steps",
    "training_steps": "total_steps",
    "num_training_steps": "total_steps",
    "num_warmup_steps": "warmup_steps",
    "max_learning_rate": "peak_learning_rate",
    "peak_lr": "peak_learning_rate",
    "max_lr": "peak_learning_rate",
    "end_learning_rate": "min_learning_rate",
    "end_lr": "min_learning_rate",
    "min_lr": "min_learning_rate",
    "start_lr": "warmup_init_lr",
    "num_decay_steps": "decay_steps",
    "decay_type": "decay_shape",
    "milestones": "boundaries",
}
"""Accepted name -> the constructor's name."""

RATIOS = {"warmup_ratio": "warmup_steps", "decay_ratio": "decay_steps", "min_lr_ratio": "min_learning_rate"}
"""Option given as a share -> what it stands for: of the total the first two, of the peak the last."""

OPTION_NAMES = frozenset(("scheduler_type", *ARGUMENTS, *RATIOS, *ALIASES))
"""All names that `SchedulePlan.from_options` accepts."""

_RESTARTS = {"restart_period", "restart_decay", "restart_multiplier", "restart_warmup_steps"}
_RIVALS = [
    *(({ratio}, {plain}) for ratio, plain in RATIOS.items()),
    ({"cosine_cycles"}, {"cosine_restarts"} | _RESTARTS),
]
_WARMUP_ONLY = {"peak_learning_rate", "warmup_steps", "warmup_ratio", "warmup_init_lr"}


@dataclass(frozen=True)
class SchedulePlan:
    """A shape and the options known so far; what is missing may come later, from `merged` or `resolve`.

    Args:
        scheduler_type: a key of `SCHEDULES`; `None` for `constant_with_warmup` if all options are about
            warmup, else for `cosine_with_warmup`.
        options: pairs (canonical name, value), sorted by name; a mapping will do.

    Raises:
        ConfigError: if an option is unknown, out of range, not one of the shape's, or contradicts another.

    >>> from capibara_keras.schedules import SchedulePlan
    >>> plan = SchedulePlan.from_options({"warmup_ratio": 0.03, "end_lr": 1e-5})
    >>> plan.shape, plan.missing()
    ('cosine_with_warmup', ('total_steps',))
    >>> plan.resolve(learning_rate=3e-4, total_steps=100_000).warmup_steps
    3000
    """

    scheduler_type: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        given = {name: _check(name, value) for name, value in dict(self.options).items()}
        _consistent(self.scheduler_type, given, {})
        object.__setattr__(self, "options", tuple(sorted(given.items())))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SchedulePlan:
        """The plan of a flat dictionary.

        Args:
            options: names of `OPTION_NAMES`, aliases included; `None` counts as not given. Ratios are shares
                of the total (`warmup_ratio`, `decay_ratio`) or of the peak (`min_lr_ratio`). `total_steps` is
                accepted for every shape, used or not.

        Raises:
            ConfigError: if a name is unknown, a value out of range, an option not one of the shape's, or two
                options contradict each other.
        """
        shape, given, called = _parse(options)
        _consistent(shape, given, called)
        return cls(shape, tuple(given.items()))

    def merged(self, options: Mapping[str, Any]) -> SchedulePlan:
        """This plan with later `options`, which win: over the same option, over one that excludes it
        (`warmup_steps` over an earlier `warmup_ratio`, `cosine_cycles` over earlier restarts), and, where
        they name another shape, over all that this shape does not have.

        Raises:
            ConfigError: as `from_options`.
        """
        shape, later, called = _parse(options)
        kept = dict(self.options)
        for pair in _RIVALS:
            for one, other in (pair, pair[::-1]):
                if one & later.keys() and not other & later.keys():
                    kept = {name: value for name, value in kept.items() if name not in other}
        if shape not in (None, self.scheduler_type):
            kept = {name: value for name, value in kept.items() if name in _options_of(shape)}
        shape, given = shape or self.scheduler_type, kept | later
        _consistent(shape, given, called)
        return SchedulePlan(shape, tuple(given.items()))

    def to_options(self) -> dict[str, Any]:
        """The plan as a flat dictionary of canonical names, fit for JSON; `from_options` reads it back."""
        options = {name: list(value) if isinstance(value, tuple) else value for name, value in self.options}
        return options if self.scheduler_type is None else {"scheduler_type": self.scheduler_type, **options}

    @property
    def shape(self) -> str:
        """The key of `SCHEDULES` that will be used."""
        if self.scheduler_type is not None:
            return self.scheduler_type
        return "constant_with_warmup" if dict(self.options).keys() <= _WARMUP_ONLY else "cosine_with_warmup"

    def missing(self, total_steps: int | None = None) -> tuple[str, ...]:
        """The options still needed.

        Args:
            total_steps: the total in updates, if known from elsewhere.
        """
        given = dict(self.options)
        known = {"peak_learning_rate", *given, *(RATIOS[name] for name in given if name in RATIOS)}
        if total_steps is not None:
            known.add("total_steps")
        needed = SCHEDULES[self.shape].required(given)
        if {"warmup_ratio", "decay_ratio"} & given.keys():
            needed += ("total_steps",)
        return tuple(dict.fromkeys(name for name in needed if name not in known))

    def resolve(self, learning_rate: float, total_steps: int | None = None) -> WarmupSchedule:
        """The schedule.

        Args:
            learning_rate: the peak, unless the plan has its own.
            total_steps: the total in updates, unless the plan has its own.

        Raises:
            ConfigError: if an option is missing, or does not fit the others.
        """
        shape, given = self.shape, dict(self.options)
        _consistent(shape, given, {})
        if missing := self.missing(total_steps):
            raise ConfigError(_missing_message(shape, missing))
        if "peak_learning_rate" not in given:
            given["peak_learning_rate"] = number("learning_rate", learning_rate, 0)
        if "total_steps" not in given and total_steps is not None:
            given["total_steps"] = check("total_steps", total_steps)
        if "min_lr_ratio" in given:
            given["min_learning_rate"] = given.pop("min_lr_ratio") * given["peak_learning_rate"]
        if "warmup_ratio" in given:
            rounded_up = math.ceil(_exact(given.pop("warmup_ratio")) * given["total_steps"])
            given["warmup_steps"] = min(rounded_up, given["total_steps"] - 1)  # of a trial with one update, none
        if "decay_ratio" in given:
            given["decay_steps"] = max(1, math.floor(_exact(given.pop("decay_ratio")) * given["total_steps"]))
        cls = SCHEDULES[shape]
        if "total_steps" not in cls.required(given):
            given.pop("total_steps", None)
        if given.get("cosine_restarts") is False:
            given = {name: value for name, value in given.items() if name not in _RESTARTS}
        return cls(**given)


def _parse(options: Mapping[str, Any]) -> tuple[str | None, dict[str, Any], dict[str, str]]:
    """The shape, the options by canonical name, and how the user called each."""
    if not isinstance(options, Mapping):
        raise ConfigError(f"schedule options: expected a dictionary, received {options!r}")
    given: dict[str, Any] = {}
    called: dict[str, str] = {}
    for alias, value in options.items():
        if alias not in OPTION_NAMES:
            raise unknown("schedule option", alias, OPTION_NAMES)
        if value is None:
            continue
        name = ALIASES.get(alias, alias)
        value = _check(name, value, alias)
        if name in given and given[name] != value:
            raise ConfigError(
                f"{called[name]}={given[name]!r} and {alias}={value!r} both mean {name} and differ: give one"
            )
        given[name], called[name] = value, called.get(name, alias)
    return given.pop("scheduler_type", None), given, called


def _check(name: str, value: Any, called: str | None = None) -> Any:
    called = called or name
    if name == "scheduler_type":
        return choice(called, value, SCHEDULES)
    if name in RATIOS:
        return number(called, value, 0, 1, open_high=name == "warmup_ratio", open_low=name == "decay_ratio")
    if name not in ARGUMENTS:
        raise unknown("schedule option", name, OPTION_NAMES)
    return check(name, value, called)


def _consistent(shape: str | None, given: Mapping[str, Any], called: Mapping[str, str]) -> None:
    """Raise if two options exclude each other, or one is not the shape's."""
    for ratio, plain in RATIOS.items():
        if ratio in given and plain in given:
            one, other = called.get(plain, plain), called.get(ratio, ratio)
            values = f"{one}={given[plain]!r} and {other}={given[ratio]!r}"
            raise ConfigError(f"{values} exclude each other: give one")
    if shape is None:
        return
    allowed = _options_of(choice("scheduler_type", shape, SCHEDULES))
    for name, value in given.items():
        if name not in allowed:
            owners = ", ".join(other for other in SCHEDULES if name in _options_of(other))
            raise ConfigError(
                f"{called.get(name, name)}: {shape} has no such option, received {value!r}; {owners} has. "
                f"Allowed for {shape}: {', '.join(sorted(allowed))}"
            )


def _options_of(shape: str) -> Collection[str]:
    own = {field.name for field in fields(SCHEDULES[shape])} | {"total_steps"}
    return own | {ratio for ratio, plain in RATIOS.items() if plain in own}


def _exact(ratio: float) -> Fraction:
    """The ratio as it is written: in floats, 0.07 of 100 is a little more than 7, and its ceiling 8."""
    return Fraction(repr(ratio))


def _missing_message(shape: str, missing: tuple[str, ...]) -> str:
    message = f"{shape}: missing {', '.join(missing)}."
    for name in missing:
        others = [option for option, canonical in (ALIASES | RATIOS).items() if canonical == name]
        if others:
            message += f" {name} may be given as {', '.join(others)} too."
    if "total_steps" in missing:
        message += (
            " The total, in updates, can also come from fit(..., callbacks=[ck.Attach()]), or another callback of this"
            " package, or from optimizer.attach(total_steps=...)."
        )
    return message

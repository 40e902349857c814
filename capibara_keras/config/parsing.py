"""The one door through which dictionaries and aliases enter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.clip import ClipPolicy, NoClip
from capibara_keras.config.checks import patterns, rate
from capibara_keras.config.clipping import clip_of
from capibara_keras.config.configuration import PLAIN, OptimizerConfig, name_of
from capibara_keras.config.options import ALIASES, CLIPPING, CLIPS
from capibara_keras.groups import Group
from capibara_keras.rules import RULES, UpdateRule
from capibara_keras.schedules import OPTION_NAMES as SCHEDULE_OPTIONS
from capibara_keras.schedules import SchedulePlan

__all__ = ["canonical", "parse"]

_OWN = (
    "algorithm",
    "learning_rate",
    "weight_decay_exclude",
    "gradient_accumulation_steps",
    "groups",
    *CLIPS,
    *CLIPPING,
    *PLAIN,
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
    _refuse_foreign(given, name_of(rule), fields)
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


def _rule(given: dict[str, Any]) -> tuple[UpdateRule, list[str]]:
    """The rule that `algorithm` and its hyperparameters name, taken out of `given`, and its options."""
    algorithm = given.pop("algorithm", "adam")
    if not isinstance(algorithm, str) or algorithm not in RULES:
        raise errors.unknown("algorithm", algorithm, RULES)
    kind = RULES[algorithm]
    fields = [f.name for f in dataclasses.fields(kind)]
    return kind(**{name: given.pop(name) for name in fields if name in given}), fields


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
    return clip_of(clipping), clipping


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
        if name in ("learning_rate", "lr_multiplier", "multiplier"):
            raise errors.ConfigError(
                f"groups: {name!r} of {pattern!r}: a group has 'rate', which multiplies the optimizer's; 0.1 is a tenth"
            )
        if name not in ("rate", "weight_decay"):
            raise errors.unknown(f"option of group {pattern!r}", name, allowed)
    return Group(pattern, rule=rule, clip=None if isinstance(policy, NoClip) else policy, **given)


def _refuse_foreign(given: Mapping[str, Any], algorithm: str, fields: list[str]) -> None:
    """Raise for options that do not exist, or that belong to another algorithm."""
    for name in given:
        if name not in _OWN:
            owners = [key for key, rule in RULES.items() if name in {f.name for f in dataclasses.fields(rule)}]
            if owners:
                raise errors.ConfigError(
                    f"option {name!r} belongs to algorithm {', '.join(owners)}; {algorithm!r} has {', '.join(fields)}"
                )
            names = {*_OWN, *fields, *ALIASES, *SCHEDULE_OPTIONS}
            raise errors.unknown("option", name, names, "help(capibara_keras.OptimizerConfig)")

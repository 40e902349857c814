"""torch's optimizers: their parameter groups as options. torch itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from capibara_keras import errors
from capibara_keras.groups import check_pattern

__all__ = ["from_torch"]

_PAIR = {"betas": ("beta_1", "beta_2")}
_NAMES = {
    "eps": "epsilon",
    "alpha": "rho",
    "ns_steps": "newton_schulz_steps",
    "adjust_lr_fn": "adjust_rate",
} | {
    name: name
    for name in (
        "amsgrad",
        "centered",
        "dampening",
        "initial_accumulator_value",
        "maximize",
        "momentum",
        "momentum_decay",
        "nesterov",
        "rho",
    )
}
"""torch's names -> ours."""

_ABOUT_EXECUTION = {"params", "param_names", "name", "foreach", "capturable", "differentiable", "fused", "initial_lr"}
_TREATED = {"lr", "weight_decay", "decoupled_weight_decay"}
_FIXED = {"lr_decay": 0, "ns_coefficients": (3.4445, -4.775, 2.0315)}
"""What has one value here."""

_ALGORITHMS = {
    "Adam": "adam",
    "AdamW": "adamw",
    "SGD": "sgd",
    "RMSprop": "rmsprop",
    "NAdam": "nadam",
    "RAdam": "radam",
    "Adamax": "adamax",
    "Adagrad": "adagrad",
    "Adadelta": "adadelta",
    "Muon": "muon",
}
_DECOUPLED = {"AdamW", "Muon"}
_FROM_OUTSIDE = {"muon": {"eps"}}
"""Options of torch's that are another's here: the epsilon of Muon's norm is fixed, `epsilon` is that of its AdamW."""


def from_torch(source: Any, algorithm: str | None = None, patterns: Sequence[str] = ()) -> dict[str, Any]:
    """Options for `Optimizer.from_config` from one of torch's optimizers. Its state is not taken.

    The rate is the one that a scheduler of torch started from (`initial_lr`), else `lr`. Decay is L2 as in torch,
    except for `AdamW`, `Muon` and with `decoupled_weight_decay`.

    Args:
        source: an optimizer, its `state_dict()`, or its `param_groups`.
        algorithm: the class's name, however it is capitalised; needed where `source` is not the optimizer itself.
        patterns: for each group but the first, which variables it is about, as in `Group`. Parameters of torch have
            other names than Keras' variables.

    Raises:
        ConfigError: another class, an option that has no counterpart, or groups without patterns.

    >>> group = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}
    >>> options = from_torch([group, group | {"weight_decay": 0.0}], "AdamW", patterns=["bias"])
    >>> options["beta_2"], options["groups"]
    (0.95, [{'pattern': 'bias', 'rate': 1.0, 'weight_decay': 0.0}])
    """
    groups, found = _groups(source)
    name = algorithm or found
    if name is None:
        raise errors.ConfigError(
            "from_torch: the source does not say which optimizer it is; give algorithm, like 'AdamW'"
        )
    name = {known.lower(): known for known in _ALGORITHMS}.get(str(name).lower(), name)
    if name not in _ALGORITHMS:
        raise errors.unknown("optimizer of torch", name, _ALGORITHMS)
    if isinstance(patterns, str) or len(patterns) != len(groups) - 1:
        raise errors.ConfigError(
            f"from_torch: {len(groups)} parameter groups need {len(groups) - 1} patterns, one for each but the first; "
            f"received {patterns!r}"
        )
    first, rate = _translated(groups[0], name), _rate(groups[0])
    options = {"algorithm": _ALGORITHMS[name], "learning_rate": rate} | first | _decay_mode(groups, name)
    others = [
        _group(check_pattern(pattern), group, name, first, rate)
        for pattern, group in zip(patterns, groups[1:], strict=True)
    ]
    return options | ({"groups": others} if others else {})


def _groups(source: Any) -> tuple[list[Mapping[str, Any]], str | None]:
    """The parameter groups, and the class's name if it is known."""
    if isinstance(source, Mapping) and "param_groups" in source:
        return list(source["param_groups"]), None
    if hasattr(source, "param_groups"):
        return list(source.param_groups), type(source).__name__
    if isinstance(source, Sequence) and source and all(isinstance(group, Mapping) for group in source):
        return list(source), None
    raise errors.ConfigError(
        f"from_torch: expected an optimizer of torch, its state_dict() or its param_groups, received {source!r}"
    )


def _rate(group: Mapping[str, Any]) -> float:
    return errors.number("lr", _plain(group.get("initial_lr", group.get("lr"))), 0)


def _plain(value: Any) -> Any:
    """A number out of a tensor of one."""
    return value.item() if hasattr(value, "item") else value


def _translated(group: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A group's options, without its rate."""
    decay = errors.number("weight_decay", _plain(group.get("weight_decay", 0.0)), 0)
    options: dict[str, Any] = {"weight_decay": decay}
    ignored = _ABOUT_EXECUTION | _TREATED | _FROM_OUTSIDE.get(_ALGORITHMS[name], set())
    for key, value in group.items():
        if key in ignored:
            continue
        if key in _FIXED:
            same = tuple(value) == _FIXED[key] if isinstance(value, Sequence) else value == _FIXED[key]
            if not same:
                raise errors.ConfigError(f"from_torch: {key} can only be {_FIXED[key]!r} here, received {value!r}")
        elif key in _PAIR:
            if not isinstance(value, Sequence) or len(value) != 2:
                raise errors.ConfigError(f"from_torch: {key} are expected as two numbers, received {value!r}")
            options |= dict(zip(_PAIR[key], map(_plain, value), strict=True))
        elif key in _NAMES:
            options[_NAMES[key]] = _plain(value)
        else:
            raise errors.unknown(f"option of torch's {name}", key, [*_NAMES, *_PAIR, *_TREATED])
    if name == "Muon":
        options["adjust_rate"] = options.get("adjust_rate") or "original"
    return options


def _decay_mode(groups: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """How weights decay, where they do."""
    decoupled = {
        name in _DECOUPLED or bool(group.get("decoupled_weight_decay", False))
        for group in groups
        if group.get("weight_decay", 0.0)
    }
    if len(decoupled) > 1:
        raise errors.ConfigError("from_torch: decoupled_weight_decay is one for all groups, received True and False")
    return {"weight_decay_mode": "l2"} if decoupled == {False} else {}


def _group(pattern: str, group: Mapping[str, Any], name: str, first: Mapping[str, Any], base: float) -> dict[str, Any]:
    """A later group, as what is different in it."""
    own, rate = _translated(group, name), _rate(group)
    if base == 0 and rate != 0:
        raise errors.ConfigError(
            f"from_torch: group {pattern!r} has rate {rate!r}, and the first has 0: no multiple of it"
        )
    if own.pop("maximize", False) != first.get("maximize", False):
        raise errors.ConfigError("from_torch: maximize is one for all groups, received True and False")
    options = {"pattern": pattern, "rate": rate / base if base else 1.0, "weight_decay": own.pop("weight_decay")}
    if any(value != first[key] for key, value in own.items()):
        options |= {"algorithm": _ALGORITHMS[name]} | own
    return options

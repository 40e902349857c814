"""What each constructor argument of a schedule may be: one table, for the classes and for flat options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from capibara_keras.errors import ConfigError, boolean, choice, integer, number

__all__ = ["ARGUMENTS", "LAST_STEP", "check", "unfit"]

LAST_STEP = 2**31 - 1
"""The largest update index: int32, because TPUs have no fast int64 and JAX has none by default."""


def unfit(name: str, expected: str, received: Any) -> ConfigError:
    """The error for a value that does not fit: `raise unfit("decay_steps", "at most 9", 10)`."""
    return ConfigError(f"{name}: expected {expected}, received {received!r}")


def _steps(low: int) -> Callable[[str, Any], int]:
    return lambda name, value: integer(name, value, low, LAST_STEP)


def _number(low: float, high: float = float("inf"), **bounds: bool) -> Callable[[str, Any], float]:
    return lambda name, value: number(name, value, low, high, **bounds)


def _sequence(item: Callable[[str, Any], Any]) -> Callable[[str, Any], tuple]:
    def check_each(name: str, value: Any) -> tuple:
        if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
            raise unfit(name, "a list of numbers", value)
        return tuple(item(f"{name}[{i}]", x) for i, x in enumerate(value))

    return check_each


def _increasing(name: str, value: Any) -> tuple:
    steps = _sequence(_steps(1))(name, value)
    if any(b <= a for a, b in pairwise(steps)):
        raise unfit(name, "strictly increasing update indices", value)
    return steps


ARGUMENTS: dict[str, Callable[[str, Any], Any]] = {
    "peak_learning_rate": _number(0),
    "min_learning_rate": _number(0),
    "warmup_init_lr": _number(0),
    "warmup_steps": _steps(0),
    "total_steps": _steps(1),
    "power": _number(0, open_low=True),
    "cosine_cycles": _number(0.01),
    "cosine_restarts": boolean,
    "restart_period": _steps(1),
    "restart_decay": _number(0, 1, open_low=True),
    "restart_multiplier": _number(1, LAST_STEP),
    "restart_warmup_steps": _steps(0),
    "timescale": _steps(1),
    "decay_steps": _steps(1),
    "decay_rate": _number(0, 1, open_low=True),
    "decay_shape": lambda name, value: choice(name, value, ("linear", "cosine", "1-sqrt")),
    "boundaries": _increasing,
    "factors": _sequence(_number(0)),
    "cycle_steps": _steps(2),
    "cycle_decay": _number(0, 1, open_low=True),
}
"""Constructor argument -> its check: `(name, value) -> value`."""


def check(argument: str, value: Any, called: str | None = None) -> Any:
    """`value`, if `argument` may have it; numbers become `int` or `float`, lists become tuples.

    Args:
        called: the name under which the user gave it, for the message.

    >>> check("total_steps", 5000.0)
    5000
    """
    test = ARGUMENTS.get(argument)
    return test(called or argument, value) if test else value

"""The errors of this package, and the checks that raise them.

Every message names the argument, the value received, what is allowed, and, for a name that does not
exist, the nearest one that does.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

__all__ = ["CapibaraError", "CheckpointError", "ConfigError", "TuningError"]


class CapibaraError(Exception):
    """Base of every error that this package raises on purpose.

    >>> issubclass(ConfigError, CapibaraError) and issubclass(ConfigError, ValueError)
    True
    """

    __init__ = Exception.__init__  # not that of `ValueError`: in a `tf.function`, AutoGraph keeps the type for this one


class ConfigError(CapibaraError, ValueError):
    """An option that cannot be right: unknown, of a wrong type, out of range, missing or contradictory.

    >>> import capibara_keras as ck
    >>> ck.Adam(beta_1=1.5)
    Traceback (most recent call last):
        ...
    capibara_keras.errors.ConfigError: beta_1: expected a number in [0, 1), received 1.5
    """


class CheckpointError(CapibaraError, ValueError):
    """Saved state that does not belong to this optimizer; the message lists the variables.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


class TuningError(CapibaraError, RuntimeError):
    """A search without a result: no trial completed. What was computed is kept.

    >>> issubclass(TuningError, RuntimeError)
    True
    """


MOST = 40
"""Up to so many names are listed; of more, only those most like the one received."""


def nearest(name: str, allowed: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The allowed name most like `name`, or `None` if none is like it: by the `cutoff` of `difflib`, in [0, 1]."""
    close = difflib.get_close_matches(name.lower(), list(allowed), n=1, cutoff=cutoff)
    return close[0] if close else None


def unknown(kind: str, name: object, allowed: Iterable[str], listed_in: str = "") -> ConfigError:
    """The error for a name that does not exist: `raise unknown("option", "weigth_decay", OPTIONS)`.

    Args:
        listed_in: where all names are found, if they are many.
    """
    allowed = sorted(allowed)
    guess = nearest(name, allowed) if isinstance(name, str) else None
    hint = f" Did you mean {guess!r}?" if guess else ""
    shown, rest = allowed, ""
    if len(allowed) > MOST:
        shown = difflib.get_close_matches(str(name).lower(), allowed, n=8, cutoff=0.0)
        rest = f", … ({len(allowed)} in all{listed_in and f': see {listed_in}'})"
    return ConfigError(f"unknown {kind} {name!r}.{hint} Allowed: {', '.join(shown)}{rest}")


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value`, if it is one of the `allowed` strings."""
    allowed = list(allowed)
    if value not in allowed:
        raise unknown(name, value, allowed)
    return str(value)


def number(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """`value` as a float, if it is a finite real number in the interval.

    Args:
        name: the argument, for the message.
        value: a Python or NumPy number; `bool` is not one.
        low, high: bounds, included unless `open_low` or `open_high`.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    above = real and (value > low if open_low else value >= low)
    below = real and (value < high if open_high else value <= high)
    if not (above and below):
        raise ConfigError(f"{name}: expected a number{_interval(low, high, open_low, open_high)}, received {value!r}")
    return float(value)


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int, if it is a whole number (5000.0 counts) in [low, high]."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    whole = real and int(value) == value
    if not whole or (low is not None and value < low) or (high is not None and value > high):
        bounds = _interval(-math.inf if low is None else low, math.inf if high is None else high, False, False)
        raise ConfigError(f"{name}: expected a whole number{bounds}, received {value!r}")
    return int(value)


def boolean(name: str, value: Any) -> bool:
    """`value`, if it is a `bool` (a NumPy one counts)."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise ConfigError(f"{name}: expected True or False, received {value!r}")
    return bool(value)


def _interval(low: float, high: float, open_low: bool, open_high: bool) -> str:
    if low == -math.inf and high == math.inf:
        return ""
    if high == math.inf:
        return f" {'>' if open_low else '>='} {low:g}"
    if low == -math.inf:
        return f" {'<' if open_high else '<='} {high:g}"
    return f" in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"

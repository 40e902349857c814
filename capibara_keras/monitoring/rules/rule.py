"""What a health rule is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from capibara_keras import errors
from capibara_keras.monitoring.alerts import LEVELS, Alert
from capibara_keras.monitoring.history import ARRIVALS, History

__all__ = ["Finding", "HealthRule"]


@dataclass(frozen=True)
class Finding:
    """What a test saw: the condition holds at this update.

    Args:
        value: what is compared with the limit.
        layers: that it concerns, the worst first.
        numbers: for the message and the suggestion.

    >>> Finding(350.0, ("rnn",)).layers
    ('rnn',)
    """

    value: float
    layers: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HealthRule:
    """One row of the table of rules: when something is wrong, how to say it, and what to do.

    Args:
        name: id of its alerts.
        level: "info", "warning" or "critical".
        test: (history, limit) -> `Finding`, or `None` where all is well or nothing is known.
        limit: of the test.
        message, suggestion: templates for `str.format`, with `value`, `limit`, `layer` (the worst), `layers`
            (" (layer a, b and 3 more)"), `step` and the finding's numbers.
        needs: what must have arrived for an evaluation: "update" (any), "loss", "measurement" (norms of parameters and
            of their change), "probe", or "validation".
        hold: evaluations in a row that must find it.
        every: evaluate at every so many of these only.
        causes: names of rules that explain it: while one of them is true, or was within 200 updates, it says nothing.
        once: say it once, until `reset`.
        escalates: a warning that lasts 5 times as long becomes critical.

    Raises:
        ConfigError: a bad level or number.

    >>> def norm_above(history, limit):
    ...     norm = history.latest.gradient_norm
    ...     return Finding(norm) if norm > limit else None
    >>> rule = HealthRule("big_gradient", "warning", norm_above, 5.0, "norm {value:.1f}", "clip at {limit:g}")
    >>> rule.alert(Finding(7.0), step=3).message
    'norm 7.0'
    """

    name: str
    level: str
    test: Callable[[History, float], Finding | None]
    limit: float
    message: str
    suggestion: str
    needs: str = "update"
    hold: int = 1
    every: int = 1
    causes: tuple[str, ...] = ()
    once: bool = False
    escalates: bool = False

    def __post_init__(self) -> None:
        errors.choice(f"level of rule {self.name!r}", self.level, LEVELS)
        errors.choice(f"needs of rule {self.name!r}", self.needs, ARRIVALS)
        if not callable(self.test):
            raise errors.ConfigError(f"test of rule {self.name!r}: expected a function, received {self.test!r}")
        for name in ("hold", "every"):
            errors.integer(f"{name} of rule {self.name!r}", getattr(self, name), 1)
        errors.number(f"limit of rule {self.name!r}", self.limit)

    def alert(self, finding: Finding, step: int, level: str | None = None) -> Alert:
        """The alert for a finding."""
        numbers = {
            "value": finding.value,
            "limit": self.limit,
            "layer": finding.layers[0] if finding.layers else "",
            "layers": in_layers(finding.layers),
            "step": step,
        } | finding.numbers
        return Alert(
            id=self.name,
            level=level or self.level,
            message=self.message.format(**numbers),
            suggestion=self.suggestion.format(**numbers),
            step=step,
            layer=str(numbers["layer"]),
            value=float(finding.value),
            threshold=float(self.limit),
        )


def in_layers(names: tuple[str, ...], shown: int = 3) -> str:
    """Names for a sentence.

    >>> in_layers(("a", "b", "c", "d", "e")), in_layers(("a", "b")), in_layers(())
    (' (layers a, b, c and 2 more)', ' (layers a and b)', '')
    """
    if not names:
        return ""
    if len(names) == 1:
        return f" (layer {names[0]})"
    if len(names) > shown:
        return f" (layers {', '.join(names[:shown])} and {len(names) - shown} more)"
    return f" (layers {', '.join(names[:-1])} and {names[-1]})"


def rounded(x: float) -> float:
    """To two digits, for suggestions.

    >>> rounded(0.0012345)
    0.0012
    """
    return float(f"{x:.1e}") if math.isfinite(x) else x

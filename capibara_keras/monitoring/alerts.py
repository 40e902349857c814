"""What monitoring has to say."""

from __future__ import annotations

from dataclasses import dataclass

from capibara_keras.records import Record

__all__ = ["LEVELS", "Alert"]

LEVELS = ("info", "warning", "critical")
"""From the least to the most."""


@dataclass(frozen=True)
class Alert(Record):
    """One problem, said once.

    Args:
        id: of the rule, such as "gradient_explosion".
        level: "info", "warning" or "critical".
        message: what was seen, with numbers.
        suggestion: what to do, with a number.
        step: index of the update at which it was seen.
        layer: the worst layer; "" where it concerns none, "loss" where it is the loss.
        value: what was measured.
        threshold: the limit that it broke.

    >>> alert = Alert("lr_zero", "warning", "the learning rate is 0", "set it to 1e-3", 20, "", 0.0, 1e-9)
    >>> print(alert)
    warning at update 20: the learning rate is 0. Set it to 1e-3.
    """

    id: str
    level: str
    message: str
    suggestion: str
    step: int
    layer: str
    value: float
    threshold: float

    def __str__(self) -> str:
        advice = f" {self.suggestion[:1].upper()}{self.suggestion[1:]}." if self.suggestion else ""
        return f"{self.level} at update {self.step}: {self.message}.{advice}"

"""From conditions that hold to alerts that are said once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from capibara_keras import errors
from capibara_keras.monitoring.alerts import LEVELS, Alert
from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.rules import DEFAULT_RULES, Finding, HealthRule

__all__ = ["COOL_DOWN", "ESCALATION", "REARM", "Engine"]

REARM = 20
"""Evaluations in a row that must find nothing before a rule may speak again."""

COOL_DOWN = 200
"""Updates after an alert in which its rule does not speak again, and in which it explains symptoms."""

ESCALATION = 5
"""A warning whose condition lasts this many times its `hold` becomes critical, if its rule escalates."""

UNIVERSAL = ("nonfinite_parameter", "nonfinite_loss", "nonfinite_gradient", "loss_divergence")
"""Numbers that are not finite explain all else, and divergence all but them."""


@dataclass
class _Status:
    """What the engine knows of one rule."""

    evaluations: int = 0
    true: int = 0
    false: int = 0
    armed: bool = True
    escalated: bool = False
    spoke_at: int | None = None
    spoke_after: int = 0

    def may_speak(self, rule: HealthRule, update: int) -> bool:
        """Whether the condition has held long enough, and the rule has not just said so."""
        rested = self.spoke_at is None or update - self.spoke_at >= COOL_DOWN
        return self.armed and rested and self.true >= rule.hold

    def found_nothing(self, rule: HealthRule) -> None:
        """The test did not find anything."""
        self.true, self.false, self.spoke_after = 0, self.false + 1, 0
        if self.false >= REARM:
            self.armed = self.spoke_at is None or not rule.once


class Engine:
    """Evaluates rules after each observation.

    A rule speaks when its test has found something in `hold` evaluations in a row. Then it is silent until it has
    found nothing for 20 evaluations and 200 updates have passed. It is not heard while a rule that explains it is true.

    Args:
        rules: the table; the order matters only for `causes`.

    Raises:
        ConfigError: two rules of one name, or a cause that is no rule.
    """

    def __init__(self, rules: Iterable[HealthRule] = DEFAULT_RULES) -> None:
        self.rules = tuple(rules)
        names = [rule.name for rule in self.rules]
        if len(set(names)) != len(names):
            raise errors.ConfigError(f"rules: two of one name in {sorted(names)}")
        known = {*names, *(rule.name for rule in DEFAULT_RULES)}
        for rule in self.rules:
            for cause in rule.causes:
                if cause not in known:
                    raise errors.unknown(f"cause of rule {rule.name!r}", cause, known)
        self._causes = {rule.name: (*rule.causes, *self._above(rule.name)) for rule in self.rules}
        self.reset()

    def reset(self) -> None:
        """Forget what was said."""
        self._status = {rule.name: _Status() for rule in self.rules}
        self._statuses = [(rule, self._status[rule.name]) for rule in self.rules]

    def check(self, history: History) -> list[Alert]:
        """The alerts of what arrived last, the most serious first."""
        alerts = []
        for rule, status in self._statuses:
            if rule.needs not in history.arrived:
                continue
            status.evaluations += 1
            if status.evaluations % rule.every:
                continue
            finding = rule.test(history, rule.limit)
            if finding is None:
                status.found_nothing(rule)
                continue
            alert = self._judge(rule, status, finding, history.latest.update)
            if alert is not None:
                alerts.append(alert)
        return sorted(alerts, key=lambda alert: -LEVELS.index(alert.level)) if len(alerts) > 1 else alerts

    def _judge(self, rule: HealthRule, status: _Status, finding: Finding, update: int) -> Alert | None:
        """What is said about a finding."""
        status.true, status.false = status.true + 1, 0
        if self.active(self._causes[rule.name], update):
            return None
        if status.may_speak(rule, update):
            status.armed, status.escalated, status.spoke_at = False, False, update
            status.spoke_after = status.true - rule.hold
            return rule.alert(finding, update)
        lasted = status.true - status.spoke_after
        if rule.escalates and not status.armed and not status.escalated and lasted >= ESCALATION * rule.hold:
            status.escalated = True
            return rule.alert(finding, update, "critical")
        return None

    @staticmethod
    def _above(name: str) -> tuple[str, ...]:
        """The universal causes of a rule; for one of them those before it, from `loss_divergence` on."""
        if name not in UNIVERSAL:
            return UNIVERSAL
        return UNIVERSAL[:-1] if name == UNIVERSAL[-1] else ()

    def active(self, names: Sequence[str], update: int) -> bool:
        """Whether one of these rules is true now, or spoke within 200 updates."""
        for name in names:
            status = self._status.get(name)
            if status is not None and (
                status.true > 0 or (status.spoke_at is not None and update - status.spoke_at < COOL_DOWN)
            ):
                return True
        return False

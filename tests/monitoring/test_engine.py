"""Hold, re-arming, cool-down, escalation, causes, and rules of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from capibara_keras.errors import ConfigError
from capibara_keras.monitoring import DEFAULT_RULES, Alert, Finding, HealthRule, Monitor, Observation
from capibara_keras.monitoring.history import History
from tests.monitoring.streams import SUBJECT, changed, healthy, said


def above(history: History, limit: float) -> Finding | None:
    """Found where the loss is above the limit."""
    return Finding(history.latest.loss) if history.latest.loss > limit else None


def below(history: History, limit: float) -> Finding | None:
    return Finding(history.latest.loss) if history.latest.loss < -limit else None


def rule(name: str = "high", test: Callable[..., Any] = above, **options: Any) -> HealthRule:
    return HealthRule(name, options.pop("level", "warning"), test, 0.5, "is {value:g}", "go to {limit:g}", **options)


def alerts(losses: Iterable[float], *rules: HealthRule) -> list[Alert]:
    monitor = Monitor(SUBJECT, rules)
    return [alert for t, loss in enumerate(losses) for alert in monitor.observe(Observation(t, loss=float(loss)))]


def steps(losses: Iterable[float], *rules: HealthRule) -> list[int]:
    return [alert.step for alert in alerts(losses, *rules)]


def test_an_alert_has_numbers_from_the_finding() -> None:
    (alert,) = alerts([0, 2], rule())
    assert alert == Alert("high", "warning", "is 2", "go to 0.5", 1, "", 2.0, 0.5)
    assert str(alert) == "warning at update 1: is 2. Go to 0.5." and alert["step"] == 1


def test_it_is_said_once() -> None:
    assert steps([1] * 1000, rule()) == [0]


def test_hold() -> None:
    assert steps([1, 1, 0, 1, 1, 1, 1], rule(hold=3)) == [5]


def test_every() -> None:
    """Evaluations at the 5th, 10th, … that count."""
    assert steps([1] * 30, rule(every=5, hold=2)) == [9]


def test_rearms_after_20_evaluations_without_it() -> None:
    assert steps([1, *[0] * 19, *[1] * 300], rule()) == [0]
    assert steps([1, *[0] * 250, 1], rule()) == [0, 251]


def test_cool_down_of_200_updates() -> None:
    """Armed again, but not rested: it speaks when it is."""
    assert steps([1, *[0] * 30, *[1] * 300], rule()) == [0, 200]


def test_once_until_reset() -> None:
    monitor = Monitor(SUBJECT, [rule(once=True)])
    stream = [Observation(t, loss=float(t % 300 == 0)) for t in range(1000)]
    assert said(stream, monitor) == ["high"]
    monitor.reset()
    assert said(stream[:10], monitor) == ["high"] and len(monitor.alerts) == 1


def test_escalation() -> None:
    found = alerts([1] * 100, rule(hold=3, escalates=True))
    assert [(alert.level, alert.step) for alert in found] == [("warning", 2), ("critical", 14)]
    assert len(alerts([1] * 14, rule(hold=3, escalates=True))) == 1


def test_a_cause_silences_its_symptom() -> None:
    cause, symptom = rule("cause", level="critical"), rule("symptom", causes=("cause",))
    assert [alert.id for alert in alerts([1] * 50, cause, symptom)] == ["cause"]


def test_a_symptom_that_outlasts_its_cause_is_said() -> None:
    """The cause was within 200 updates; after that the symptom has no excuse."""
    cause = rule("cause", below, level="critical")
    symptom = rule("symptom", causes=("cause",))
    assert [(a.id, a.step) for a in alerts([-1, *[1] * 300], cause, symptom)] == [("cause", 0), ("symptom", 200)]


def test_a_cause_that_does_not_hold_yet_silences_too() -> None:
    cause, symptom = rule("cause", hold=5), rule("symptom", causes=("cause",))
    assert steps([1, 1, 1, 0, 1, 1], cause, symptom) == []


def test_numbers_that_are_not_finite_explain_the_rest() -> None:
    nonfinite = [rule for rule in DEFAULT_RULES if rule.name == "nonfinite_loss"]
    mine = rule()
    found = alerts([0.1, float("inf"), *[1] * 250], *nonfinite, mine)
    assert [(a.id, a.step) for a in found] == [("nonfinite_loss", 1), ("high", 201)]


def test_the_most_serious_comes_first() -> None:
    found = alerts([1], rule("a", level="info"), rule("b"), rule("c", level="critical"))
    assert [alert.id for alert in found] == ["c", "b", "a"]


@pytest.mark.parametrize(
    "needs,updates", [("update", [0, 1, 2, 3]), ("loss", [1, 3]), ("measurement", [2]), ("probe", [3])]
)
def test_a_rule_is_asked_when_what_it_needs_has_come(needs: str, updates: list[int]) -> None:
    asked: list[int] = []

    def test(history: History, limit: float) -> None:
        asked.append(history.latest.update)

    full = healthy(4)
    nan = float("nan")
    stream = changed(full, 0, lambda x: {"probe": x.probe if x.update == 3 else None})
    stream = changed(stream, 0, lambda x: {"loss": x.loss if x.update in (1, 3) else nan})
    stream = changed(stream, 0, lambda x: {"parameter_norm": x.parameter_norm if x.update == 2 else nan})
    said(stream, Monitor(SUBJECT, [rule(test=test, needs=needs)]))
    assert asked == updates


def test_own_rules_beside_the_default_ones() -> None:
    monitor = Monitor(SUBJECT, [*DEFAULT_RULES, rule("loss_above_half", hold=10)])
    assert said(healthy(), monitor) == ["loss_above_half"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"level": "warnign"}, "Did you mean 'warning'"),
        ({"hold": 0}, "hold of rule 'high'"),
        ({"needs": "prob"}, "Did you mean 'probe'"),
        ({"test": 3}, "expected a function"),
    ],
)
def test_bad_rules(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(**options)


def test_bad_tables() -> None:
    with pytest.raises(ConfigError, match="two of one name"):
        Monitor(SUBJECT, [rule(), rule()])
    with pytest.raises(ConfigError, match="Did you mean 'loss_divergence'"):
        Monitor(SUBJECT, [rule(causes=("loss_divergance",))])

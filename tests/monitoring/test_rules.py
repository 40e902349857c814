"""Each rule of the table on a stream that is sick in just that way, and on ones that only look like it."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.monitoring import DEFAULT_RULES, HealthRule, Monitor, Observation, Subject
from capibara_keras.schedules import OPTION_NAMES
from tests.monitoring.streams import SUBJECT, changed, healthy, probe, said, watch

Change = Callable[[Observation], dict[str, Any]]
RATIOS = np.array([4.0, 0.5, 4.0, 4.0, 0.5, 3.0, 0.3])


def updates(ratio: float) -> dict[str, Any]:
    """Updates of this ratio to all layers."""
    moved = ratio * RATIOS
    return {"update_norms": moved, "update_norm": float(np.linalg.norm(moved)), "parameter_norms": RATIOS}


def gradients(*factors: float) -> Change:
    """The gradients of the variables times factors."""

    def change(x: Observation) -> dict[str, Any]:
        norms = x.gradient_norms * np.array(factors)
        return {"gradient_norms": norms, "gradient_norm": float(np.linalg.norm(norms[~np.isnan(norms)]))}

    return change


def probed(**values: Any) -> Change:
    return lambda x: {"probe": probe(**values)}


def silent(units: np.ndarray, since: int = 0) -> Change:
    """These units have had no gradient from update `since` on."""
    return lambda x: {"probe": probe(silent_updates=units * (x.update + 1 - since))}


def bad(*layers: int) -> Change:
    """Gradients of these variables that are not finite."""
    factors = np.where(np.isin(np.arange(7), layers), np.inf, 1.0)
    return gradients(*factors)


def shrinking(x: Observation) -> dict[str, Any]:
    size = 10 * 0.99**x.update
    return {"parameter_norm": size, "update_norm": 0.011 * size, "decay_norm": 0.01 * size}


def attention(x: Observation) -> dict[str, Any]:
    return updates(0.05) if x.update < 40 else {}


UNITS = np.repeat([0, 2, 3], [16, 16, 4])
TRANSFORMER = dataclasses.replace(SUBJECT, attention=True)
SUBJECTS = {"warmup_missing": TRANSFORMER, "clipping_saturated": dataclasses.replace(SUBJECT, adaptive=False)}

SICK: dict[str, tuple[Change, str, int]] = {
    "nonfinite_parameter": (lambda x: {"parameter_norms": np.where(np.arange(7) == 3, np.inf, RATIOS)}, "b", 0),
    "nonfinite_loss": (lambda x: {"loss": math.inf} | bad(*range(7))(x), "loss", 0),
    "nonfinite_gradient": (bad(0, 1, 3), "b", 0),
    "fp16_underflow": (
        probed(half_precision=np.ones(7), small_entries=np.full(7, 9), zero_fraction=np.full(7, 0.5)),
        "a",
        40,
    ),
    "adam_epsilon_dominant": (probed(below_epsilon=np.array([0.1] * 3 + [0.9] * 4)), "b", 40),
    "loss_divergence": (lambda x: {"loss": x.loss * math.exp((x.update - 50) / 25)}, "loss", 80),
    "loss_spike": (lambda x: {"loss": x.loss + (4.0 if x.update == 120 else 0.0)}, "loss", 120),
    "loss_oscillation": (lambda x: {"loss": x.loss * (1 + 0.6 * math.sin(x.update / 2))}, "loss", 250),
    "slow_progress": (lambda x: {"loss": 1.4 + 0.01 * math.sin(x.update**2)} | updates(2e-5), "loss", 160),
    "no_learning": (lambda x: {"loss": 1.4 + 0.05 * math.sin(x.update**2)}, "loss", 560),
    "bad_init": (lambda x: {"loss": 20.0 * 0.97**x.update}, "loss", 0),
    "gradient_explosion": (
        lambda x: gradients(1, 1, 1, *[1000.0 if x.update == 90 else 1.0] * 2, 1, 1)(x),
        "b",
        90,
    ),
    "gradient_huge": (gradients(*[1e8] * 7), "c", 20),
    "gradient_vanishing": (gradients(1e-5, 1e-5, 1, 1, 1, 1, 1), "a", 130),
    "no_gradient": (gradients(1, 1, 1, math.nan, math.nan, 1, 1), "b", 30),
    "dead_units": (silent(UNITS == 2, 10), "b", 60),
    "symmetric_units": (probed(equal_columns=np.array([0, math.nan, math.nan, 1.0, math.nan, 0, math.nan])), "b", 20),
    "clipping_saturated": (lambda x: {"clip_threshold": 1e-3, "clipped": True}, "", 120),
    "update_ratio_high": (lambda x: updates(0.3), "a", 30),
    "weight_decay_dominant": (shrinking, "", 80),
    "warmup_missing": (attention, "", 15),
    "lr_zero": (lambda x: {"learning_rate": 0.0 if x.update > 50 else 1e-3}, "", 75),
}
"""Rule -> how a stream becomes sick, the layer that is named ("" for none or any), and the latest delay."""

STARTS = {"loss_divergence": 50, "clipping_saturated": 0}


@pytest.mark.parametrize("name", SICK)
def test_each_problem_is_named_alone(name: str) -> None:
    """Nothing else is said, the right layer is, and soon."""
    change, layer, delay = SICK[name]
    start = STARTS.get(name, 0)
    subject = SUBJECTS.get(name, SUBJECT)
    found = [a for a in watch(changed(healthy(600), start, change), Monitor(subject)) if a.level != "info"]
    assert {alert.id for alert in found} == {name}
    assert not layer or found[0].layer == layer
    assert found[0].step <= start + delay
    assert found[0].suggestion and any(c.isdigit() for c in found[0].message + found[0].suggestion)


KERAS = {"activation", "kernel_initializer", "trainable", "patience", "restore_best_weights"}
OPTIONS = {*ck.AdamW().configuration.to_options(), *OPTION_NAMES, *inspect.signature(ck.HealthMonitor).parameters}
LIMITLESS = {"nonfinite_parameter", "nonfinite_loss", "warmup_missing"}
"""A number that is not finite is one too many; and the text of a start without warmup has one of two limits."""


@pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.name)
def test_a_text_says_the_limit_and_what_to_set(rule: HealthRule) -> None:
    """By names that exist."""
    assert "limit" in rule.message or rule.name in LIMITLESS
    assert re.findall(r"(\w+)=|learning_rate|weight_decay|kernel_initializer", rule.suggestion)
    assert set(re.findall(r"(\w+)=", rule.suggestion)) <= KERAS | OPTIONS


def test_a_start_that_goes_up_is_told_by_the_loss() -> None:
    """Where the ratio of updates is not known."""
    rising = [Observation(t, loss=1.4 * 1.1**t, learning_rate=1e-3) for t in range(20)]
    alerts = watch(rising, Monitor(TRANSFORMER))
    assert "the loss went from 1.54 to" in alerts[0].message and "nan" not in alerts[0].message


def test_the_table_is_covered() -> None:
    elsewhere = {"overfitting", "loss_plateau", "update_ratio_low", "lr_jump", "late_start"}
    assert {rule.name for rule in DEFAULT_RULES} == set(SICK) | elsewhere


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 3e4])
def test_a_healthy_stream_is_left_alone(seed: int, scale: float) -> None:
    """Whatever the units of the loss. Only the plateau at its end is remarked, as information."""
    subject = SUBJECT if scale == 1 else dataclasses.replace(SUBJECT, baseline_loss=math.nan)
    found = watch(healthy(600, seed, scale), Monitor(subject))
    assert {(alert.level, alert.id) for alert in found} <= {("info", "loss_plateau")}


def test_a_stream_of_losses_alone_is_enough_for_their_rules() -> None:
    stream = [Observation(x.update, loss=x.loss) for x in healthy(200)]
    assert said(stream) == []
    assert said([*stream, Observation(200, loss=math.inf)]) == ["nonfinite_loss"]


def test_nothing_known_says_nothing() -> None:
    monitor = Monitor(Subject(paths=("w",), shapes=((2, 2),)))
    assert watch([Observation(t) for t in range(500)], monitor) == []


# What looks alike ------------------------------------------------------------------------------------------


def test_overflows_under_a_loss_scale_are_usual() -> None:
    """The scale finds its size by overflowing; five in a row are too many."""
    subject = dataclasses.replace(SUBJECT, loss_scaled=True)
    overflow = lambda x: bad(*range(7))(x) if x.update % 20 < 4 else {}  # noqa: E731
    assert said(changed(healthy(), 0, overflow), Monitor(subject)) == []
    overflow = lambda x: bad(*range(7))(x) if x.update in range(50, 56) else {}  # noqa: E731
    assert said(changed(healthy(), 0, overflow), Monitor(subject)) == ["nonfinite_gradient"]


@pytest.mark.parametrize("loss, said_of_it", [(1.0, True), (math.nan, False)])
def test_a_loss_that_is_not_known_is_not_called_finite(loss: float, said_of_it: bool) -> None:
    (alert,) = watch([Observation(0, loss=loss, gradient_norm=math.inf)])
    assert ("the loss is not" in alert.message) == said_of_it


def test_adaptive_clipping_clips_by_design() -> None:
    subject = dataclasses.replace(SUBJECT, adaptive=False, fixed_clip=False)
    clipped = changed(healthy(), 0, lambda x: {"clip_threshold": 1e-3, "clipped": True})
    assert said(clipped, Monitor(subject)) == []
    assert said(clipped, Monitor(SUBJECT)) == []  # Adam's step does not depend on the gradient's scale


def test_a_limit_near_the_usual_norm_may_clip_always() -> None:
    near = changed(healthy(), 0, lambda x: {"clip_threshold": 0.5 * x.gradient_norm, "clipped": True})
    assert said(near, Monitor(SUBJECTS["clipping_saturated"])) == []


def test_back_to_an_old_norm_is_no_explosion() -> None:
    """After training has converged and its rate restarts."""
    small = changed(healthy(), 150, gradients(*[1e-4] * 7), stop=300)
    assert "gradient_explosion" not in said(small)


def test_a_model_that_is_trained_already() -> None:
    """Its loss does not fall, and needs not."""
    trained = changed(healthy(), 0, lambda x: {"loss": 0.01 + 0.002 * math.sin(x.update**2)} | updates(1e-6))
    assert said(trained) == []


def test_a_negative_loss() -> None:
    falling = changed(healthy(), 0, lambda x: {"loss": x.loss - 1.5})
    subject = dataclasses.replace(SUBJECT, baseline_loss=math.nan)
    assert said(falling, Monitor(subject)) == []
    rising = changed(falling, 200, lambda x: {"loss": x.loss + 0.05 * (x.update - 200)})
    assert said(rising, Monitor(subject)) == ["loss_divergence"]


def test_half_of_the_units_may_be_silent() -> None:
    half = np.arange(36) % 2 == 0
    assert said(changed(healthy(), 0, silent(half))) == []


def test_units_that_take_turns_are_not_dead() -> None:
    turns = lambda x: {"probe": probe(silent_updates=(np.arange(36) + x.update) % 5)}  # noqa: E731
    assert said(changed(healthy(), 0, turns)) == []


def test_units_that_are_dying_explain_a_small_gradient() -> None:
    """Before they are declared dead."""
    dying = lambda x: gradients(1e-5, 1e-5, 1, 1, 1, 1, 1)(x) | silent(UNITS == 0)(x)  # noqa: E731
    assert said(changed(healthy(), 0, dying)) == ["dead_units"]


def test_a_gradient_that_vanishes_explains_slow_progress() -> None:
    """A higher rate is no remedy for it."""
    slow = lambda x: {"loss": 1.4 + 0.01 * math.sin(x.update**2)} | updates(2e-5)  # noqa: E731
    vanishing = lambda x: slow(x) | gradients(1e-5, 1e-5, 1, 1, 1, 1, 1)(x)  # noqa: E731
    assert said(changed(healthy(300), 0, vanishing)) == ["gradient_vanishing"]


def test_a_loss_of_0_needs_no_higher_rate() -> None:
    """Nothing is left to learn, and weights stand still."""
    still = lambda x: {"loss": 0.0} | updates(0.0) | gradients(*[0.0] * 7)(x)  # noqa: E731
    assert {alert.id for alert in watch(changed(healthy(), 0, still))} <= {"loss_plateau"}
    rounded_away = watch(changed(healthy(), 0, lambda x: updates(0.0)))
    assert "update_ratio_low" in [alert.id for alert in rounded_away]


def test_no_gradient_anywhere_is_a_loss_of_nothing() -> None:
    assert "dead_units" not in said(changed(healthy(), 0, silent(np.ones(36, bool))))


def test_a_warmup_is_seen() -> None:
    warm = changed(healthy(), 0, lambda x: attention(x) | {"learning_rate": 1e-3 * min(1, (x.update + 1) / 100)})
    assert "warmup_missing" not in said(warm, Monitor(TRANSFORMER))


def test_first_updates_may_be_large() -> None:
    assert said(changed(healthy(), 0, lambda x: updates(0.25 * 0.7**x.update + 1e-3))) == []


def test_decay_that_balances_the_update_is_no_harm() -> None:
    assert said(changed(healthy(), 0, lambda x: {"decay_norm": 0.8 * x.update_norm})) == []


@pytest.mark.parametrize("symptom", [gradients(1e-5, 1e-5, 1, 1, 1, 1, 1), silent(UNITS == 2)], ids=["small", "silent"])
def test_weights_that_decay_explain_gradients_that_vanish(symptom: Change) -> None:
    def change(x: Observation) -> dict[str, Any]:
        return shrinking(x) | (symptom(x) if x.update > 60 else {})

    assert said(changed(healthy(240), 0, change)) == ["weight_decay_dominant"]


def test_a_layer_that_began_at_zero_grows_by_its_own_size() -> None:
    """A linear model that starts at 0, say: after t steps its norm is t steps."""
    linear = Monitor(Subject(paths=("w",), shapes=((8, 2),)))
    grown = [Observation(t, loss=0.5, parameter_norm=0.1 * t, update_norm=0.1, learning_rate=0.1) for t in range(200)]
    norms = [{"parameter_norms": np.array([0.1 * t]), "update_norms": np.array([0.1])} for t in range(200)]
    stream = [dataclasses.replace(x, **norm) for x, norm in zip(grown, norms, strict=True)]
    assert "update_ratio_high" not in said(stream, linear)


def late(x: Observation, start: int) -> dict[str, Any]:
    """Nothing is learned until `start`."""
    fallen = 0.97 ** max(0, x.update - start)
    return {"loss": 1.4 * fallen + 0.05 * math.sin(x.update**2)}


def test_a_late_start_is_only_remarked() -> None:
    found = watch(changed(healthy(600), 0, lambda x: late(x, 300)))
    assert [(a.level, a.id) for a in found if a.id != "loss_plateau"] == [("info", "late_start")]


def test_a_weak_signal_is_learning_too() -> None:
    """The noise of a batch is ten times what can be learned."""
    noise = np.random.default_rng(0).normal(size=900)
    weak = changed(healthy(900), 0, lambda x: {"loss": 1.4 * (0.96 + 0.04 * 0.98**x.update) + 0.4 * noise[x.update]})
    assert said(weak) == []


@pytest.mark.parametrize("seed", range(3))
def test_losses_with_a_long_tail_are_no_spikes(seed: int) -> None:
    """A few hard examples make a batch's loss many times the median."""
    rng = np.random.default_rng(seed)
    hard = 0.05 * rng.exponential(size=400) + 0.7 * rng.exponential(size=400) * (rng.random(400) < 0.2)
    assert "loss_spike" not in said(changed(healthy(), 0, lambda x: {"loss": 0.97**x.update + hard[x.update]}))


def test_a_swing_that_takes_back_what_was_gained() -> None:
    """By 4 % of the loss only, and slowly; the same beside a large gain is no matter."""
    swinging = changed(healthy(), 0, lambda x: {"loss": 1.0 + 0.1 * 0.9**x.update + 0.04 * math.sin(x.update / 9)})
    assert said(swinging) == ["loss_oscillation"]


@pytest.mark.parametrize("width", [4, 5, 7])
def test_a_fall_in_the_form_of_an_s_does_not_swing(width: int) -> None:
    """No parabola follows it, and what is left has a period of a third of the window."""
    rng = np.random.default_rng(0)

    def falling(x: Observation) -> dict[str, float]:
        height = 1.4 / (1 + math.exp((x.update - 55) / width)) + 0.003
        return {"loss": height * (1 + 0.02 * rng.normal())}

    assert "loss_oscillation" not in said(changed(healthy(), 0, falling))
    learned = changed(healthy(), 0, lambda x: {"loss": 1.0 + 0.97**x.update + 0.04 * math.sin(x.update / 9)})
    assert said(learned) == []


def test_rate_that_ends_at_a_floor() -> None:
    assert said(changed(healthy(), 200, lambda x: {"learning_rate": 1e-5})) == []


# Information -----------------------------------------------------------------------------------------------


def test_information() -> None:
    low = watch(changed(healthy(), 0, lambda x: updates(1e-6)))
    assert "update_ratio_low" in [alert.id for alert in low if alert.level == "info"]
    jump = watch(changed(healthy(), 100, lambda x: {"learning_rate": 1e-2}))
    assert [(a.id, a.step) for a in jump if a.id != "loss_plateau"] == [("lr_jump", 100)]


def test_plateau_says_what_was_gained() -> None:
    (alert,) = [alert for alert in watch(healthy(800)) if alert.id == "loss_plateau"]
    assert alert.level == "info" and 400 < alert.step < 800 and "gain of 1." in alert.message


# Validation ------------------------------------------------------------------------------------------------


def validated(losses: list[float], training: Callable[[int], float]) -> list[tuple[str, int]]:
    """Alerts of a training with a validation every 40 updates."""
    monitor, found = Monitor(SUBJECT), []
    for x in healthy(40 * len(losses)):
        found += monitor.observe(dataclasses.replace(x, loss=training(x.update)))
        if x.update % 40 == 39:
            found += monitor.validate(x.update, losses[x.update // 40])
    return [(alert.id, alert.step) for alert in found if alert.level != "info"]


FALLING = [1.4, 1.1, 0.9, 0.8, 0.75, 0.72]


def test_overfitting() -> None:
    rising = [*FALLING, 0.78, 0.88, 0.95, 1.0, 1.1, 1.2]
    found = validated(rising, lambda t: 1.4 * 0.99**t)
    assert [name for name, _ in found] == ["overfitting"] and 280 < found[0][1] < 480


@pytest.mark.parametrize(
    "losses,training",
    [
        ([*FALLING, 0.71, 0.72, 0.71, 0.73, 0.72, 0.71], lambda t: 1.4 * 0.99**t),
        ([*FALLING, 0.78, 0.88, 0.95, 1.0, 1.1, 1.2], lambda t: max(1.4 * 0.99**t, 0.72)),
        ([*FALLING[:3], 1.3, *FALLING[3:], 0.71, 0.7], lambda t: 1.4 * 0.99**t),
        ([0.5, 0.2, 0.1, 0.06, 0.05, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.1], lambda t: 1.4 * 0.97**t),
    ],
    ids=["flat", "training stands still too", "one bad validation", "small beside what was gained"],
)
def test_not_overfitting(losses: list[float], training: Callable[[int], float]) -> None:
    assert validated(losses, training) == []


# Finding them in time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", [0, 1, 57])
@pytest.mark.parametrize("name", ["nonfinite_loss", "nonfinite_gradient", "nonfinite_parameter"])
def test_numbers_that_are_not_finite_are_named_at_once(name: str, update: int) -> None:
    change, layer, _ = SICK[name]
    (alert,) = watch(changed(healthy(), update, change, stop=update + 1))[:1]
    assert (alert.id, alert.level, alert.step, alert.layer) == (name, "critical", update, layer)

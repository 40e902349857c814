"""Flat options to schedules: names, aliases, contradictions, what is missing, what later options change."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capibara_keras.errors import ConfigError
from capibara_keras.schedules import (
    OPTION_NAMES,
    SCHEDULES,
    WSD,
    ConstantWithWarmup,
    CosineWithWarmup,
    Exponential,
    LinearWithWarmup,
    OneCycle,
    Piecewise,
    Polynomial,
    SchedulePlan,
)
from capibara_keras.schedules.plan import ALIASES

plan = SchedulePlan.from_options

RESTARTS = {
    "warmup_steps": 10000,
    "max_steps": 500000,
    "min_learning_rate": 1e-6,
    "cosine_restarts": True,
    "restart_decay": 0.8,
    "restart_period": 100000,
}
COSINE = {
    "scheduler_type": "cosine_with_warmup",
    "warmup_steps": 2000,
    "max_steps": 100000,
    "max_learning_rate": 6e-4,
    "min_learning_rate": 6e-5,
    "cosine_cycles": 1.0,
    "warmup_init_lr": 0.0,
}
LINEAR = {
    "scheduler_type": "linear_with_warmup",
    "warmup_steps": 5000,
    "training_steps": 200000,
    "start_lr": 0.0,
    "peak_lr": 3e-4,
    "end_lr": 1e-5,
}
POLYNOMIAL = {
    "scheduler_type": "polynomial",
    "power": 0.5,
    "warmup_steps": 1000,
    "total_steps": 500000,
    "end_learning_rate": 1e-6,
}
BUILT = [
    (
        RESTARTS,
        CosineWithWarmup(1e-4, 500_000, 10_000, 1e-6, cosine_restarts=True, restart_period=100_000, restart_decay=0.8),
    ),
    (COSINE, CosineWithWarmup(6e-4, 100_000, 2_000, 6e-5)),
    (LINEAR, LinearWithWarmup(3e-4, 200_000, 5_000, 1e-5)),
    (POLYNOMIAL, Polynomial(1e-4, 500_000, 1_000, 1e-6, power=0.5)),
]


@pytest.mark.parametrize(("options", "schedule"), BUILT)
def test_complete_dictionaries(options, schedule):
    assert plan(options).missing() == ()
    assert plan(options).resolve(1e-4) == schedule
    assert SchedulePlan("cosine_with_warmup").merged(options).resolve(1e-4, total_steps=7) == schedule


def test_one_optimizer_configured_four_times():
    current = SchedulePlan("cosine_with_warmup")
    for options, schedule in BUILT[:3]:
        current = current.merged(options)
        assert current.resolve(1e-4) == schedule
    assert current.merged(POLYNOMIAL).resolve(1e-4) == Polynomial(3e-4, 500_000, 1_000, 1e-6, power=0.5)


def test_shares_of_a_total_that_comes_later():
    large = plan({"scheduler_type": "cosine_with_warmup", "warmup_ratio": 0.03, "min_lr_ratio": 0.1})
    assert large.missing() == ("total_steps",)
    assert large.missing(total_steps=100_000) == ()
    schedule = large.resolve(1.5e-4, total_steps=100_000)
    assert (schedule.total_steps, schedule.warmup_steps) == (100_000, 3_000)
    assert schedule.min_learning_rate == pytest.approx(1.5e-5)


def test_finetuning_needs_only_the_total():
    fine = plan({"scheduler_type": "linear_with_warmup", "warmup_steps": 500})
    assert fine.resolve(5e-5, total_steps=3_000) == LinearWithWarmup(5e-5, 3_000, 500)


@settings(deadline=None)
@given(st.integers(1, 999), st.integers(1, 10**6))
def test_warmup_ratio_is_the_exact_ceiling(permille, thousands):
    T = 1000 * thousands
    schedule = plan({"warmup_ratio": permille / 1000}).resolve(1.0, total_steps=T)
    assert schedule.warmup_steps == permille * thousands


@pytest.mark.parametrize(("T", "ratio", "warmup"), [(1, 0.1, 0), (2, 0.1, 1), (3, 0.9, 2)])
def test_a_warmup_ratio_leaves_an_update(T, ratio, warmup):
    """A first trial of `fit` with one batch is no contradiction."""
    schedule = plan({"scheduler_type": "cosine_with_warmup", "warmup_ratio": ratio}).resolve(1.0, total_steps=T)
    assert (schedule.warmup_steps, float(schedule(warmup)), float(schedule(T))) == (warmup, 1.0, 0.0)


def test_decay_ratio():
    options = {"scheduler_type": "wsd", "decay_ratio": 0.2, "warmup_ratio": 0.01, "decay_type": "1-sqrt"}
    assert plan(options).missing() == ("total_steps",)
    assert plan(options).resolve(1.0, 1_000) == WSD(1.0, 1_000, 200, 10, decay_shape="1-sqrt")


def test_own_total_and_peak_win():
    schedule = plan({"max_steps": 100, "peak_lr": 0.5}).resolve(learning_rate=1.0, total_steps=7)
    assert (schedule.total_steps, schedule.peak) == (100, 0.5)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, "constant_with_warmup"),
        ({"warmup_steps": 5, "start_lr": 0.0, "max_lr": 1.0}, "constant_with_warmup"),
        ({"warmup_steps": 5, "max_steps": 9}, "cosine_with_warmup"),
        ({"end_lr": 1e-6}, "cosine_with_warmup"),
        ({"max_steps": 9, "scheduler_type": "wsd"}, "wsd"),
    ],
)
def test_shape_without_a_name(options, shape):
    assert plan(options).shape == shape


def test_a_total_is_accepted_where_it_is_not_needed():
    assert plan({"warmup_steps": 5}).resolve(1.0, total_steps=100) == ConstantWithWarmup(1.0, 5)
    assert plan({"warmup_ratio": 0.05}).resolve(1.0, total_steps=100) == ConstantWithWarmup(1.0, 5)
    options = {"scheduler_type": "exponential", "decay_rate": 0.5, "decay_steps": 10}
    assert plan(options).resolve(1.0, total_steps=100) == Exponential(1.0, decay_rate=0.5, decay_steps=10)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"scheduler_type": "cosine_with_warmup"}, ("total_steps",)),
        ({"cosine_restarts": True, "max_steps": 9}, ("restart_period",)),
        ({"scheduler_type": "wsd"}, ("total_steps", "decay_steps")),
        ({"scheduler_type": "exponential"}, ("total_steps", "min_learning_rate")),
        ({"scheduler_type": "exponential", "min_lr_ratio": 0.1}, ("total_steps",)),
        ({"scheduler_type": "exponential", "decay_rate": 0.1}, ("decay_steps",)),
        ({"scheduler_type": "piecewise"}, ("boundaries", "factors")),
        ({"scheduler_type": "cyclic"}, ("cycle_steps",)),
        ({"scheduler_type": "inverse_sqrt"}, ()),
        ({"scheduler_type": "inverse_sqrt", "warmup_ratio": 0.1}, ("total_steps",)),
    ],
)
def test_missing(options, missing):
    assert plan(options).missing() == missing
    if missing:
        with pytest.raises(ConfigError, match=f"missing {', '.join(missing)}"):
            plan(options).resolve(1.0)
    else:
        assert plan(options).resolve(1.0).peak == 1.0


def test_the_error_says_where_a_total_can_come_from():
    with pytest.raises(ConfigError, match=r"max_steps.*training_steps.*callback.*attach\(total_steps="):
        plan({"scheduler_type": "one_cycle"}).resolve(1.0)
    assert plan({"scheduler_type": "one_cycle"}).resolve(1.0, 50) == OneCycle(1.0, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_step": 5}, r"schedule option 'warmup_step'. Did you mean 'warmup_steps'\?"),
        ({"scheduler_type": "cosine"}, r"scheduler_type 'cosine'. Did you mean 'cosine_with_warmup'\?"),
        ({"max_steps": 5, "training_steps": 6}, r"max_steps=5 and training_steps=6 both mean total_steps"),
        ({"peak_lr": 1.0, "max_learning_rate": 2.0}, r"peak_lr=1.0 and max_learning_rate=2.0 both mean"),
        ({"num_warmup_steps": 5, "warmup_ratio": 0.1}, r"num_warmup_steps=5 and warmup_ratio=0.1 exclude"),
        ({"end_lr": 1e-5, "min_lr_ratio": 0.1}, r"end_lr=1e-05 and min_lr_ratio=0.1 exclude each other"),
        ({"max_steps": -5}, r"max_steps: expected a whole number.*received -5"),
        ({"warmup_ratio": 1.0}, r"warmup_ratio: expected a number in \[0, 1\), received 1.0"),
        (
            {"scheduler_type": "linear_with_warmup", "power": 2.0},
            r"power: linear_with_warmup has no such option, received 2.0; polynomial has. Allowed for ",
        ),
        ({"scheduler_type": "inverse_sqrt", "end_lr": 0.1}, r"end_lr: inverse_sqrt has no such option"),
        ({"scheduler_type": "polynomial", "decay_steps": 9}, r"decay_steps: polynomial has no such.*wsd"),
        ([("max_steps", 5)], r"schedule options: expected a dictionary, received \["),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        plan(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 2.0, "max_steps": 9}, r"power: cosine_with_warmup has no such option"),
        ({"max_steps": 9, "warmup_steps": 9}, r"total_steps: expected more than warmup_steps=9, received 9"),
        ({"max_steps": 9, "end_lr": 2.0}, r"min_learning_rate: .*peak_learning_rate=1.0, received 2.0"),
        ({"max_steps": 9, "restart_period": 3}, r"restart_period: .*cosine_restarts=True, received 3"),
    ],
)
def test_options_that_cannot_be_resolved(options, message):
    with pytest.raises(ConfigError, match=message):
        plan(options).resolve(1.0)


def test_a_bad_rate_from_outside_is_named():
    with pytest.raises(ConfigError, match=r"learning_rate: expected a number >= 0, received None"):
        plan({}).resolve(None)


def test_equal_aliases_agree_and_none_is_not_given():
    assert plan({"max_steps": 5, "training_steps": 5.0, "end_lr": None}) == plan({"total_steps": 5})


def test_later_options_win():
    first = plan({"scheduler_type": "cosine_with_warmup", "warmup_steps": 5, "max_steps": 100, "end_lr": 0.1})
    assert first.merged({}) == first
    assert first.merged({"training_steps": 50}).resolve(1.0).total_steps == 50
    later = first.merged({"warmup_ratio": 0.5, "min_lr_ratio": 0.25}).resolve(1.0)
    assert (later.warmup_steps, later.min_learning_rate) == (50, 0.25)
    linear = first.merged({"cosine_cycles": 2}).merged({"scheduler_type": "linear_with_warmup"})
    assert linear.resolve(1.0) == LinearWithWarmup(1.0, 100, 5, 0.1)
    with pytest.raises(ConfigError, match="power: cosine_with_warmup has no such option"):
        first.merged({"power": 2.0})


def test_cycles_and_restarts_replace_each_other():
    restarts = plan(RESTARTS)
    assert restarts.merged({"cosine_cycles": 2}).resolve(1.0).cosine_cycles == 2
    assert restarts.merged({"cosine_cycles": 2}).merged(RESTARTS) == restarts
    assert restarts.merged({"restart_decay": 0.5}).resolve(1.0).restart_decay == 0.5
    assert not restarts.merged({"cosine_restarts": False}).resolve(1.0).cosine_restarts


def test_a_plan_is_data():
    options = {"scheduler_type": "piecewise", "milestones": [3, 6], "factors": [0.1, 0.01], "warmup_steps": 1}
    for given_options in (options, RESTARTS, COSINE, LINEAR, POLYNOMIAL, {}, {"warmup_ratio": 0.1}):
        p = plan(given_options)
        assert plan(json.loads(json.dumps(p.to_options()))) == p
        assert SchedulePlan(p.scheduler_type, p.options) == p and hash(p) == hash(plan(p.to_options()))
    assert plan(options).resolve(1.0) == Piecewise(1.0, (3, 6), (0.1, 0.01), 1)


def test_every_argument_of_every_shape_is_an_option():
    for cls in SCHEDULES.values():
        assert cls.__dataclass_fields__.keys() <= OPTION_NAMES
    assert ALIASES.keys() <= OPTION_NAMES and set(ALIASES.values()) <= OPTION_NAMES

"""Search spaces: notation, conditions, the unit cube, and keras-tuner's hyperparameters."""

from __future__ import annotations

import json
from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import capibara_keras as ck
from capibara_keras.tuning import SearchSpace, sample
from capibara_keras.tuning.domains import Choice, Range
from capibara_keras.tuning.hypermodel import decoded, hyperparameters
from capibara_keras.tuning.notation import read_dimension

RANGES = [
    Range(1e-5, 1e-3, log=True),
    Range(0.0, 0.2),
    Range(500, 5000, whole=True),
    Range(1, 1000, log=True, whole=True),
    Choice(("a", None, 3.0)),
]
MIXED: dict[str, Any] = {
    "momentum": [0.0, 0.99, "uniform"],
    "beta1": [0.8, 0.99, "uniform"],
    "algorithm": ["adam", "sgd", "choice"],
    "learning_rate": [1e-5, 1.0, "log"],
    "gradient_clip_norm": [None, 1.0, "choice"],
    "nesterov": {"values": "bool", "when": {"algorithm": "sgd"}},
    "scheduler_type": ["polynomial", "linear_with_warmup", "choice"],
    "power": [0.5, 2.0, "uniform"],
    "warmup_ratio": [0.0, 0.2, "uniform"],
    "epsilon": 1e-8,
}
"""Everything at once; what others depend on comes late, on purpose."""


@pytest.mark.parametrize("domain", RANGES, ids=str)
@given(u=st.floats(0, 1))
def test_values_stay_inside_and_come_back(domain: Any, u: float) -> None:
    value = domain.at(u)
    if isinstance(domain, Range):
        assert domain.low <= value <= domain.high
        assert isinstance(value, int) == domain.whole
    assert domain.at(domain.position(value)) == value


def test_logarithmic_ranges_are_even_in_the_logarithm() -> None:
    domain = Range(1e-5, 1e-3, log=True)
    logs = np.log10([domain.at(u) for u in np.linspace(0, 1, 5)])
    np.testing.assert_allclose(np.diff(logs), 0.5)


def test_integers_are_equally_likely() -> None:
    domain = Range(1, 4, whole=True)
    _, counts = np.unique([domain.at(u) for u in (np.arange(4000) + 0.5) / 4000], return_counts=True)
    assert counts.tolist() == [1000] * 4


def test_options_belong_to_their_algorithm_and_schedule() -> None:
    """Without being told: momentum only where there is SGD, power only where there is a polynomial."""
    space = SearchSpace.parse(MIXED)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(100):
        values = space.values(rng.random(len(space.dimensions)))
        assert ("momentum" in values) == ("nesterov" in values) == (values["algorithm"] == "sgd")
        assert ("beta1" in values) == (values["algorithm"] == "adam")
        assert ("power" in values) == (values["scheduler_type"] == "polynomial")
        ck.Optimizer.from_config(values | {"max_steps": 10})
        seen.add((values["algorithm"], values["scheduler_type"]))
    assert len(seen) == 4


@settings(max_examples=30)
@given(units=st.lists(st.floats(0, 1), min_size=len(MIXED), max_size=len(MIXED)))
def test_values_survive_keras_tuner(units: list[float]) -> None:
    """Also on the wire, where it holds only numbers, strings and booleans."""
    space = SearchSpace.parse(MIXED)
    values = space.values(units)
    hp = hyperparameters(space, values)
    assert decoded(space, hp.values) == values
    wire = keras_tuner.HyperParameters.from_proto(hp.to_proto())
    back = decoded(space, wire.values)
    assert back.keys() == values.keys()
    for name, value in values.items():
        assert back[name] == value if not isinstance(value, float) else back[name] == pytest.approx(value, rel=1e-6)
    assert space.values(space.units(values)) == values


def test_features_tell_choices_apart_and_not_inactive_options() -> None:
    space = SearchSpace.parse({"algorithm": ["adam", "sgd", "choice"], "momentum": [0.0, 0.9, "uniform"]})
    adam, also = (space.features(space.values([0.1, u])) for u in (0.2, 0.9))
    np.testing.assert_array_equal(adam, also)
    sgd = space.features(space.values([0.9, 0.9]))
    assert (sgd[:2] == [0, 1]).all() and (adam[:2] == [1, 0]).all()


def test_a_hypermodel_asks_for_the_options_that_apply() -> None:
    hp = keras_tuner.HyperParameters()
    values = sample(hp, MIXED)
    assert values["algorithm"] == "adam" and "momentum" not in values
    hp.values |= {"algorithm": "sgd", "momentum": 0.3, "nesterov": True}
    values = sample(hp, MIXED)
    assert values["momentum"] == 0.3 and values["nesterov"] and "beta1" not in values


def test_conditions_on_values_that_keras_tuner_cannot_hold() -> None:
    """It gets their numbers, in conditions too."""
    space = {"clipnorm": [None, 1.0, "choice"], "beta1": {"values": [0.8, 0.9, "uniform"], "when": {"clipnorm": None}}}
    hp = keras_tuner.HyperParameters()
    assert sample(hp, space) == {"clipnorm": None, "beta1": 0.8}
    hp.values["beta1"] = 0.85
    assert sample(hp, space)["beta1"] == 0.85
    hp.values["clipnorm"] = 1
    assert sample(hp, space) == {"clipnorm": 1.0}


@pytest.mark.parametrize("value", [("bias",), np.float32(0.5), {"a": (1, 2)}], ids=str)
def test_values_are_those_that_come_back_from_a_file(value: Any) -> None:
    """Else a search that goes on would not find its own configurations in the space."""
    choice = read_dimension("option", [value, None, "choice"]).domain
    assert isinstance(choice, Choice)
    assert [choice.position(json.loads(json.dumps(v))) for v in choice.values] == [0.25, 0.75]


BAD: dict[str, tuple[Any, str]] = {
    "empty": ({}, "nothing to search"),
    "all fixed": ({"learning_rate": 0.1}, "nothing to search"),
    "not a dictionary": ([1, 2], "expected a dictionary"),
    "low is high": ({"learning_rate": [0.1, 0.1, "log"]}, "low must be less than high"),
    "low above high": ({"beta1": [0.9, 0.1, "uniform"]}, "beta1: low must be less than high"),
    "log of zero": ({"weight_decay": [0.0, 0.1, "log"]}, "needs low > 0"),
    "no kind": ({"learning_rate": [0.1, 0.2]}, "the last entry must be one of"),
    "misspelt kind": ({"learning_rate": [0.1, 0.2, "lgo"]}, "Did you mean 'log'"),
    "one bound": ({"learning_rate": [0.1, "log"]}, r"expected \[low, high, kind\]"),
    "no choice": ({"algorithm": ["choice"]}, "received no value"),
    "fraction": ({"warmup_steps": [0.5, 3, "int"]}, "whole number"),
    "nan": ({"learning_rate": [float("nan"), 1.0, "uniform"]}, "learning_rate: low"),
    "misspelt option": ({"lerning_rate": [0.1, 0.2, "log"]}, "Did you mean 'learning_rate'"),
    "value not allowed": ({"beta1": [0.9, 1.0, "uniform"]}, r"beta_1: expected a number in \[0, 1\), received 1.0"),
    "unknown algorithm": ({"algorithm": ["adam", "adamm", "choice"]}, "Did you mean 'adam'"),
    "other algorithm's": ({"algorithm": "adam", "momentum": [0.1, 0.2, "uniform"]}, "belongs to algorithm sgd"),
    "unknown condition": ({"beta1": {"values": [0.1, 0.2, "uniform"], "when": {"x": 1}}}, "condition of beta1"),
    "bad condition": ({"beta1": {"value": [0.1, 0.2, "uniform"]}}, '"values": …, "when"'),
    "condition on another value": (
        {
            "algorithm": ["adam", "sgd", "choice"],
            "beta1": {"values": [0.1, 0.2, "uniform"], "when": {"algorithm": "lion"}},
        },
        "beta1: the condition algorithm='lion' never holds.*'adam', 'sgd'",
    ),
    "condition on a real number": (
        {"beta2": [0.9, 0.99, "uniform"], "beta1": {"values": [0.1, 0.2, "uniform"], "when": {"beta2": 0.95}}},
        "beta1: the condition beta2=0.95 never holds.*a range of reals",
    ),
    "the same twice": ({"algorithm": ["adam", "adam", "choice"]}, "received 'adam' twice"),
    "no value twice": ({"gradient_clip_norm": [None, 1.0, None, "choice"]}, "received None twice"),
    "no plain data": ({"learning_rate": [keras.optimizers.schedules.CosineDecay(1.0, 9), 0.1, "choice"]}, "in a file"),
    "not finite": ({"gradient_clip_norm": [1.0, float("inf"), "choice"]}, "finite number.*received inf"),
    "bool with values": ({"nesterov": [True, "bool"], "algorithm": "sgd"}, r'expected \["bool"\]'),
    "two names": (
        {"learning_rate": [0.1, 0.2, "log"], "lr": [0.1, 0.2, "log"]},
        "search_space: learning_rate and lr are the same option",
    ),
    "circle": (
        {
            "beta1": {"values": [0.1, 0.2, "uniform"], "when": {"beta2": 0.1}},
            "beta2": {"values": [0.1, 0.2, "choice"], "when": {"beta1": 0.1}},
        },
        "depend on each other",
    ),
}


@pytest.mark.parametrize("space, message", BAD.values(), ids=BAD)
def test_bad_spaces(space: Any, message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        SearchSpace.parse(space)

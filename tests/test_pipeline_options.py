"""Numbers that change between updates: at once, in functions that are compiled already, without a new trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from tests import problem
from tests.reference import Reference

ADAM = {"algorithm": "adam", "learning_rate": 0.05}
ADAMW = {"algorithm": "adamw", "learning_rate": 0.05, "weight_decay": 0.1}
MOMENTUM = {"algorithm": "sgd", "learning_rate": 0.05, "momentum": 0.9}
EMA = {"use_ema": True, "ema_momentum": 0.9}
CHANGES: list[tuple[dict[str, Any], str, float]] = [
    (ADAM, "beta_1", 0.5),
    (ADAM, "beta_2", 0.9),
    (ADAM, "epsilon", 0.1),
    (ADAM, "learning_rate", 0.2),
    (ADAMW, "weight_decay", 0.5),
    (ADAMW | {"weight_decay_mode": "l2"}, "weight_decay", 0.5),
    (ADAMW | {"weight_decay_mode": "independent"}, "weight_decay", 0.02),
    (MOMENTUM, "momentum", 0.5),
    (MOMENTUM | {"dampening": 0.5}, "dampening", 0.1),
    (MOMENTUM | {"global_clipnorm": 1.0}, "global_clipnorm", 0.1),
    (MOMENTUM | {"clipnorm": 1.0}, "clipnorm", 0.1),
    (MOMENTUM | {"clipvalue": 1.0}, "clipvalue", 0.01),
    (MOMENTUM | EMA, "ema_momentum", 0.5),
]
"""Options, and one that is assigned after three updates."""


def name_of(value: Any) -> str:
    """For the tests' names: what changes."""
    return value if isinstance(value, str) else ""


def error_after_change(options: dict[str, Any], name: str, value: float, road: str) -> float:
    """The largest difference to the reference, whose option changes at the same time."""
    variables, arrays = problem.variables(problem.weights()), problem.weights()
    optimizer, reference = ck.Optimizer(**options), Reference(arrays, **options)
    optimizer.build(variables)
    traces = []

    def train(*grads: Any) -> None:
        traces.append(None)
        optimizer.apply(list(grads), variables)

    call: Callable[..., None] = train
    if road != "eager":
        call = tf.function(train, autograph=False, jit_compile=road == "jitted function")
    for i, micro in enumerate(problem.micro_batches(6)):
        if i == 3:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of a step that holds old options, say
                setattr(optimizer, name, value)
            assert float(getattr(optimizer, name)) == pytest.approx(value)
            assert optimizer.get_config()[name] == pytest.approx(value)
            setattr(reference, name, value)
        call(*[ops.convert_to_tensor(g, "float32") for g in micro.arrays.values()])
        reference.apply(micro.arrays)
    assert len(traces) == (6 if road == "eager" else 1)
    found = [np.array(v) for v in variables]
    expected = list(reference.w.values())
    if optimizer.use_ema:
        optimizer.finalize_variable_values(variables)
        found += [np.array(v) for v in variables]
        expected += list(reference.average.values())
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(("options", "name", "value"), CHANGES, ids=name_of)
def test_a_number_acts_in_a_compiled_function(options, name, value):
    assert error_after_change(options, name, value, "jitted function") < 2e-6


@pytest.mark.parametrize("road", ["eager", "function"])
@pytest.mark.parametrize(
    ("options", "name", "value"), [c for c in CHANGES if c[1] in ("beta_1", "global_clipnorm")], ids=name_of
)
def test_a_number_acts_on_other_roads(options, name, value, road):
    assert error_after_change(options, name, value, road) < 2e-6


@pytest.mark.parametrize(("options", "name", "value"), CHANGES, ids=name_of)
def test_the_change_is_large_enough_to_be_seen(options, name, value):
    """By the reference alone: with and without the change, weights or averages differ a hundred times the limit."""
    results = []
    for change in (True, False):
        reference = Reference(problem.weights(), **options)
        for i, micro in enumerate(problem.micro_batches(6)):
            if i == 3 and change:
                setattr(reference, name, value)
            reference.apply(micro.arrays)
        results.append([*reference.w.values(), *reference.average.values()])
    assert max(np.abs(a - b).max() for a, b in zip(*results, strict=True)) > 2e-4


def test_numbers_act_within_a_window():
    """Those of the moment of the update count."""
    w = keras.Variable([1.0])
    optimizer = ck.Optimizer("sgd", learning_rate=1.0, weight_decay=0.1, gradient_accumulation_steps=2)
    optimizer.apply([ops.array([1.0])], [w])
    optimizer.weight_decay, optimizer.learning_rate = 0.5, 0.5
    optimizer.apply([ops.array([3.0])], [w])
    assert float(w[0]) == pytest.approx(1.0 - 0.5 * 2.0 - 0.5 * 0.5 * 1.0)


def test_a_bad_number_changes_nothing():
    optimizer = ck.Optimizer(**ADAM, global_clipnorm=1.0)
    w = keras.Variable([1.0])
    optimizer.apply([ops.array([1.0])], [w])
    state = [np.array(v).tobytes() for v in optimizer.variables]
    for name, value in {"beta_1": 1.0, "beta_2": -0.1, "epsilon": 0.0, "global_clipnorm": 0.0}.items():
        kept = getattr(optimizer, name)
        with pytest.raises(ck.ConfigError, match=name):
            setattr(optimizer, name, value)
        assert getattr(optimizer, name) == kept
    assert [np.array(v).tobytes() for v in optimizer.variables] == state


def test_loss_scale_factor_survives_other_changes():
    """As Keras' attribute it may be assigned, and what is assigned next leaves it alone."""
    w = keras.Variable([0.0])
    optimizer = ck.Optimizer("sgd", learning_rate=1.0, global_clipnorm=5.0)
    optimizer.loss_scale_factor = 8.0
    optimizer.global_clipnorm = 4.0
    assert optimizer.loss_scale_factor == optimizer.get_config()["loss_scale_factor"] == 8.0
    optimizer.apply([ops.array([8.0])], [w])
    assert w.numpy().tolist() == [-1.0]


def test_independent_decay_rests_while_the_rate_is_zero():
    """A callback may set the rate later; until then nothing moves, and nothing is divided by zero."""
    w = keras.Variable([2.0])
    optimizer = ck.Optimizer("sgd", learning_rate=0.0, weight_decay=0.1, weight_decay_mode="independent")
    optimizer.apply([ops.array([1.0])], [w])
    assert w.numpy().tolist() == [2.0]


@pytest.mark.parametrize("road", ["eager", "jitted function"])
def test_a_rate_assigned_on_top_of_a_schedule(road):
    """1 - t/10, whose current rate is set to 0.4 before update 2: its shape goes on from there."""
    expected = [1.0, 0.9, 0.4, 0.4 * 0.7 / 0.8, 0.4 * 0.6 / 0.8]
    w = keras.Variable([0.0])
    optimizer = ck.Optimizer("sgd", learning_rate=keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0))
    optimizer.build([w])
    call: Any = lambda g: optimizer.apply([g], [w])  # noqa: E731
    if road != "eager":
        call = tf.function(call, autograph=False, jit_compile=True)
    positions = [0.0]
    for t in range(5):
        if t == 2:
            optimizer.learning_rate = 0.4
        call(ops.array([1.0]))
        positions.append(float(w[0]))
    np.testing.assert_allclose(-np.diff(positions), expected, atol=1e-6)

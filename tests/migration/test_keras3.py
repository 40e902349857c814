"""`Optimizer.from_keras`: training goes on as Keras' own optimizer would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.migration import MicroBatchSchedule, OverlaidWarmup, keras_options
from capibara_keras.migration.translations import TRANSLATIONS

SHAPES = {"dense/kernel": (4, 3), "dense/bias": (3,), "wide/kernel": (3, 5)}
Schedule = keras.optimizers.schedules.PolynomialDecay


def weights() -> list[keras.Variable]:
    rng = np.random.default_rng(0)
    variables = []
    for path, shape in SHAPES.items():
        scope, name = path.split("/")
        with keras.name_scope(scope):
            variables.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=name))
    return variables


def gradients(count: int) -> list[list[Any]]:
    rng = np.random.default_rng(1)
    return [[ops.array(rng.normal(size=s).astype("float32")) for s in SHAPES.values()] for _ in range(count)]


MAKERS: dict[str, Callable[[], Any]] = {
    "adam": lambda: keras.optimizers.Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-8),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True, epsilon=1e-8),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-8, global_clipnorm=2.0),
    "adam, schedule": lambda: keras.optimizers.Adam(Schedule(0.01, 15, 1e-3), epsilon=1e-8),
    "sgd": lambda: keras.optimizers.SGD(0.1, clipvalue=0.5),
    "sgd, momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "sgd, nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=1.0),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, rho=0.8, epsilon=1e-12),
    "rmsprop, all": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True, epsilon=1e-10),
    "nadam": lambda: keras.optimizers.Nadam(0.01, epsilon=1e-8),
    "adamax": lambda: keras.optimizers.Adamax(0.01),
    "adagrad": lambda: keras.optimizers.Adagrad(0.1, epsilon=1e-10),
    "adadelta": lambda: keras.optimizers.Adadelta(1.0),
    "ftrl": lambda: keras.optimizers.Ftrl(0.1, l1_regularization_strength=0.01, beta=0.1),
    "lion": lambda: keras.optimizers.Lion(0.01, weight_decay=0.1),
    "lamb": lambda: keras.optimizers.Lamb(0.01, epsilon=1e-8),
    "adafactor": lambda: keras.optimizers.Adafactor(0.1, clip_threshold=0.5),
    "muon": lambda: keras.optimizers.Muon(
        0.01, epsilon=1e-9, exclude_layers=["wide"], adam_lr_ratio=0.5, adam_weight_decay=0.02
    ),
    "average": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=4),
    "window": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=4, epsilon=1e-8),
    "window, schedule": lambda: keras.optimizers.SGD(Schedule(0.1, 16, 0.0), gradient_accumulation_steps=4),
}


def trained(optimizer: Any, variables: list[keras.Variable], steps: list[list[Any]]) -> list[np.ndarray]:
    stateless = keras.backend.backend() == "jax" and isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if stateless and not optimizer.built:
        optimizer.build(variables)
    for step in steps:
        if stateless:  # Keras' `apply` of this wrapper assigns in a traced branch there, whatever it wraps
            state = [[v.value for v in part] for part in (optimizer.variables, variables)]
            weights, rest = optimizer.stateless_apply(state[0], step, state[1])
            for variable, value in zip([*variables, *optimizer.variables], [*weights, *rest], strict=True):
                variable.assign(value)
        else:
            optimizer.apply(step, variables)
    return [ops.convert_to_numpy(v) for v in variables]


VARIANTS = {"adamw", "amsgrad", "adam, schedule", "sgd", "sgd, nesterov", "rmsprop", "window"}
"""Whose parts the others try too."""


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in VARIANTS)) for k in MAKERS])
def test_training_goes_on(kind: str) -> None:
    """Ten micro-batches of Keras', ten more of each."""
    start, theirs, steps = weights(), MAKERS[kind](), gradients(20)
    theirs.build(start)
    trained(theirs, start, steps[:10])
    middle = [ops.convert_to_numpy(v) for v in start]
    ours = ck.Optimizer.from_keras(theirs)
    found = trained(ours, start, steps[10:])
    for v, value in zip(start, middle, strict=True):
        v.assign(value)
    expected = trained(theirs, start, steps[10:])
    assert not np.allclose(middle[0], expected[0], atol=1e-4)
    for ours_now, theirs_now in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours_now, theirs_now, atol=1e-5)
    assert int(ours.iterations) == int(theirs.iterations)
    if theirs.use_ema:
        for row, average in zip(ours._rows, theirs._model_variables_moving_average, strict=True):
            np.testing.assert_allclose(row.average, average, atol=1e-5)


def test_every_class_is_tried() -> None:
    assert {type(make()).__name__ for make in MAKERS.values()} == set(TRANSLATIONS)


def test_exclusions_of_a_built_optimizer() -> None:
    variables, theirs = weights(), keras.optimizers.AdamW(0.1, weight_decay=0.5, epsilon=1e-8)
    theirs.exclude_from_weight_decay(var_list=[variables[2]], var_names=["bias"])
    theirs.build(variables)
    ours = ck.Optimizer.from_keras(theirs)
    rows = ours.describe(print_fn=lambda text: None)
    assert [row.weight_decay for row in rows] == [0.5, 0.0, 0.0]


def test_exclusions_before_building() -> None:
    theirs = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    theirs.exclude_from_weight_decay(var_names=["^bias", "gamma"])
    ours = ck.Optimizer.from_keras(theirs)
    ours.build(weights())
    assert [row.weight_decay for row in ours.describe(print_fn=lambda text: None)] == [0.5, 0.0, 0.5]
    theirs.exclude_from_weight_decay(var_list=weights())
    with pytest.raises(ck.ConfigError, match="build"):
        ck.Optimizer.from_keras(theirs)


def test_one_that_is_not_built_begins_like_keras() -> None:
    theirs, mine, start = keras.optimizers.Adam(0.01, epsilon=1e-8), weights(), weights()
    ours, steps = ck.Optimizer.from_keras(theirs), gradients(5)
    assert not ours.built
    for found, expected in zip(trained(ours, mine, steps), trained(theirs, start, steps), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_rate_that_a_callback_has_changed() -> None:
    theirs = keras.optimizers.Adam(0.01)
    theirs.learning_rate = 0.003
    assert keras_options(theirs)["learning_rate"] == 0.003


def test_in_a_loss_scale_optimizer() -> None:
    """A new wrapper with the old scale: the step goes on as in Keras'."""
    start, steps = weights(), gradients(8)
    theirs = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), 4.0, 3)
    theirs.build(start)
    trained(theirs, start, steps[:4])
    middle = [ops.convert_to_numpy(v) for v in start]
    ours = ck.Optimizer.from_keras(theirs)
    assert isinstance(ours, keras.optimizers.LossScaleOptimizer) and isinstance(ours.inner_optimizer, ck.Optimizer)
    assert float(ours.dynamic_scale) == float(theirs.dynamic_scale) == 8.0
    found = trained(ours, start, steps[4:])
    for v, value in zip(start, middle, strict=True):
        v.assign(value)
    for now, expected in zip(found, trained(theirs, start, steps[4:]), strict=True):
        np.testing.assert_allclose(now, expected, atol=1e-5)


def test_a_named_class_takes_its_own() -> None:
    assert type(ck.AdamW.from_keras(keras.optimizers.AdamW())) is ck.AdamW
    with pytest.raises(ck.ConfigError, match="name another algorithm"):
        ck.AdamW.from_keras(keras.optimizers.SGD())


def test_what_is_refused() -> None:
    class Mine(keras.optimizers.Adam):
        pass

    for optimizer, message in (
        (Mine(), "Mine has no counterpart"),
        (ck.Adam(), "Adam 'adam.*' is of this package already"),
        (keras.Sequential(), "expected an optimizer of Keras, received <Sequential"),
        ("adam", "expected an optimizer of Keras, received 'adam'"),
        (keras.optimizers.Muon(rms_rate=None), "rms_rate"),
        (keras.optimizers.Muon(muon_a=3.0), "coefficients"),
        (keras.optimizers.Muon(adam_lr_ratio=0.1), "build"),
    ):
        with pytest.raises(ck.ConfigError, match=message):
            ck.Optimizer.from_keras(optimizer)
    still = keras.optimizers.SGD(0.0, momentum=0.9)
    still.build(weights())
    with pytest.raises(ck.ConfigError, match="rate of 'sgd"):
        ck.Optimizer.from_keras(still)
    deep = keras.optimizers.Adafactor()
    deep.build([keras.Variable(np.ones((5, 2, 3), "float32"))])
    with pytest.raises(ck.ConfigError, match="largest two"):
        ck.Optimizer.from_keras(deep)


def test_schedules_are_saved() -> None:
    schedule = MicroBatchSchedule(Schedule(1.0, 8, 0.0), 4)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert again.preview(2).rates.tolist() == schedule.preview(2).rates.tolist()
    with pytest.raises(ck.ConfigError, match="schedule"):
        MicroBatchSchedule(0.1, 4)


@pytest.mark.slow
def test_in_fit() -> None:
    """Between two calls of `fit`: the loss does not jump."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    before = model.fit(x, x.sum(1), epochs=15, verbose=0).history["loss"]
    model.compile(ck.Optimizer.from_keras(model.optimizer), "mse")
    after = model.fit(x, x.sum(1), epochs=5, verbose=0).history["loss"]
    assert int(model.optimizer.iterations) == 40
    assert all(x > y for x, y in zip([before[-1], *after[:-1]], after, strict=True))


@pytest.mark.parametrize("around", [lambda s: MicroBatchSchedule(s, 2), lambda s: OverlaidWarmup(s, 3)])
def test_schedules_that_branch_can_be_drawn(around: Callable[[Any], Any]) -> None:
    """A warmup of Keras is an `if`, which takes one step at a time."""
    inner = keras.optimizers.schedules.CosineDecay(0.1, 20, warmup_target=1.0, warmup_steps=6)
    schedule = around(inner)
    one_by_one = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(schedule.preview(10).rates, one_by_one, rtol=1e-6)
    np.testing.assert_allclose(ck.schedule_curve(ck.SGD(schedule), 10).rates, one_by_one, rtol=1e-6)


def test_a_warmup_lies_over_a_schedule_only() -> None:
    with pytest.raises(ck.ConfigError, match=r"schedule: expected a keras\.optimizers\.schedules"):
        OverlaidWarmup(0.1, 3)

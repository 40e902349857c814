"""The learning rate: readable, settable, and settable on top of a schedule."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.schedules import LinearWithWarmup
from tests.models import line, values

ONES = np.ones((8, 1), "float32")
DECAY = LinearWithWarmup(1.0, total_steps=10)
"""1, 0.9, 0.8, … 0."""

sgd = partial(ck.SGD, jit_compile=False)


def current(optimizer: Any) -> float:
    """As ReduceLROnPlateau, LearningRateScheduler and TensorBoard read it."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


class Walk:
    """A weight whose gradient is always 1: how far it goes is the rate that was used."""

    def __init__(self, optimizer: Any) -> None:
        self.w, self.optimizer = keras.Variable(np.zeros(1, "float64")), optimizer

    def step(self, times: int = 1) -> float:
        """The distance of the last of some updates."""
        for _ in range(times):
            before = self.w.numpy().item()
            self.optimizer.apply([ops.ones((1,), "float64")], [self.w])
        return before - self.w.numpy().item()


def scheduled(schedule: Any = DECAY) -> Walk:
    return Walk(ck.SGD(schedule, jit_compile=False))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.5, 0.5),
        (1, 1.0),
        (np.float32(0.25), 0.25),
        (np.float64(0.125), 0.125),
        (np.int64(2), 2.0),
        (np.array(0.5), 0.5),
        (DECAY, 1.0),
        (keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9), 0.5),
        (lambda: 0.75, 0.75),
        (lambda: ops.convert_to_tensor(0.75), 0.75),
    ],
)
def test_readable_and_used(given: Any, expected: float) -> None:
    walk = scheduled(given)
    assert current(walk.optimizer) == walk.optimizer.get_learning_rate() == expected
    assert walk.step() == expected == walk.optimizer.statistics().learning_rate


@pytest.mark.parametrize("value", [0.5, 1, 0, np.float32(0.25), np.float64(0.125), np.int32(3), np.array(0.5)])
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("rate", [0.1, DECAY], ids=["number", "schedule"])
def test_assigning_any_number_makes_it_the_current_rate(rate: Any, built: bool, value: Any) -> None:
    walk = scheduled(rate)
    if built:
        walk.step(3)
    walk.optimizer.learning_rate = value
    assert current(walk.optimizer) == pytest.approx(float(value), rel=1e-6)
    assert walk.step() == pytest.approx(float(value), rel=1e-6)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "0.1", None, [0.1]])
@pytest.mark.parametrize("rate", [0.5, DECAY], ids=["number", "schedule"])
def test_assigning_anything_else_is_an_error_and_changes_nothing(rate: Any, value: Any) -> None:
    optimizer = ck.SGD(rate)
    before = current(optimizer)
    with pytest.raises(ck.ConfigError, match="learning_rate"):
        optimizer.learning_rate = value
    assert current(optimizer) == before


def test_the_schedule_goes_on_from_the_assigned_rate() -> None:
    """At update 5, 0.5 becomes 0.25; so update 8 has half of 0.2, and the floor stays 0."""
    walk = scheduled()
    walk.step(5)
    walk.optimizer.learning_rate = 0.25
    assert [walk.step() for _ in range(6)] == pytest.approx([0.25, 0.2, 0.15, 0.1, 0.05, 0.0], abs=1e-7)
    assert walk.optimizer.get_learning_rate(step=0) == pytest.approx(0.5)


def test_assigning_the_current_rate_changes_nothing() -> None:
    """Bit for bit, as often as LearningRateScheduler does it, also where the schedule is 0."""
    walk, plain = scheduled(), scheduled()
    for _ in range(12):
        walk.optimizer.learning_rate = current(walk.optimizer)
        assert walk.step() == plain.step()


def test_assigning_where_the_schedule_is_zero_is_relative_to_the_peak() -> None:
    """Half the peak before a warmup from 0: the whole shape is halved."""
    walk = scheduled(LinearWithWarmup(1.0, total_steps=10, warmup_steps=2))
    walk.optimizer.learning_rate = 0.5
    assert [walk.step() for _ in range(3)] == pytest.approx([0.0, 0.25, 0.5])


def test_assigning_zero_and_a_rate_again() -> None:
    """Zero stops; the schedule's shape is not lost by it."""
    walk = scheduled()
    walk.optimizer.learning_rate = 0.0
    assert walk.step(2) == 0.0
    walk.optimizer.learning_rate = 0.4
    assert [walk.step(), walk.step()] == pytest.approx([0.4, 0.35])  # 0.8 and 0.7, halved


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("first", [0.5, LinearWithWarmup(2.0, total_steps=100)], ids=["number", "schedule"])
def test_assigning_a_schedule_replaces_what_was_there(first: Any, built: bool) -> None:
    """Also a rate that was assigned on top of an earlier schedule."""
    walk = scheduled(first)
    walk.optimizer.learning_rate = 0.1
    if built:
        walk.step()
    walk.optimizer.learning_rate = DECAY
    assert walk.step() == pytest.approx(0.9 if built else 1.0)
    assert walk.step() == pytest.approx(0.8 if built else 0.9)


@pytest.mark.parametrize("total", [{"max_steps": 10}, {}], ids=["total", "no total"])
def test_a_schedule_that_is_switched_off_leaves_the_rate_as_it_was_given(total: dict[str, int]) -> None:
    """Not the 0 that the warmup begins with; switched on again, the schedule is as before."""
    optimizer = ck.SGD(0.5, scheduler_type="linear_with_warmup", warmup_ratio=0.2, **total)
    optimizer.use_scheduler = False
    assert (float(optimizer.learning_rate), optimizer.get_learning_rate(9)) == (0.5, 0.5)
    optimizer.reconfigure({"use_scheduler": True, "total_steps": 10})
    assert [optimizer.get_learning_rate(step) for step in (0, 2, 10)] == [0.0, 0.5, 0.0]
    optimizer.reconfigure({"use_scheduler": False, "learning_rate": 0.25})
    assert float(optimizer.learning_rate) == 0.25


def test_other_spellings_and_options_of_the_schedule_can_be_assigned() -> None:
    """They are no attributes, but must not be set as such and do nothing."""
    optimizer = ck.SGD(0.5, momentum=0.5, scheduler_type="linear_with_warmup", max_steps=10)
    optimizer.warmup_steps = 5
    assert [optimizer.get_learning_rate(step) for step in (0, 5, 10)] == [0.0, 0.5, 0.0]
    with pytest.raises(ck.ConfigError, match="warmup_ratio"):
        optimizer.warmup_ratio = 0.1
    adam = ck.Adam()
    adam.lr, adam.beta1, adam.gradient_clip_norm = 0.25, 0.5, 2.0
    assert (float(adam.learning_rate), adam.beta_1, adam.global_clipnorm) == (0.25, 0.5, 2.0)
    sgd = ck.SGD(0.5)
    sgd.warmup_steps = 4
    assert sgd.get_learning_rate(2) == 0.25


@pytest.mark.parametrize("total", [{"max_steps": 8}, {}], ids=["total", "no total"])
def test_assigning_a_schedule_replaces_one_of_options(total: dict[str, int]) -> None:
    """For good: `fit` tells the total of a schedule that is no longer used."""
    optimizer = ck.SGD(0.5, scheduler_type="linear_with_warmup", **total)
    optimizer.learning_rate = DECAY
    optimizer.attach(total_steps=8)
    again = ck.SGD.from_config(optimizer.get_config())
    assert optimizer.get_learning_rate(4) == again.get_learning_rate(4) == pytest.approx(0.6)


@pytest.mark.parametrize("rate", [0.1, DECAY], ids=["number", "schedule"])
def test_assigning_between_fits_needs_no_new_trace(rate: Any) -> None:
    traces = []

    def loss(y: Any, w: Any) -> Any:
        traces.append(1)
        return y * w

    model = line(sgd(rate))
    model.compile(model.optimizer, loss)
    model.fit(ONES, ONES, batch_size=8, verbose=0)
    before, traced = values(model)[0].item(), len(traces)
    model.optimizer.learning_rate = 0.25
    model.fit(ONES, ONES, batch_size=8, verbose=0)
    assert before - values(model)[0].item() == pytest.approx(0.25)
    # Keras may trace once more for a second `fit`: compare with one that changes nothing.
    again = len(traces)
    model.fit(ONES, ONES, batch_size=8, verbose=0)
    assert len(traces) - again == again - traced


def fit(optimizer: Any, *callbacks: keras.callbacks.Callback, epochs: int = 4) -> list[float]:
    """The rates of the epochs of `line`, an update each."""
    rates: list[float] = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(optimizer.statistics().learning_rate),
    )
    line(optimizer).fit(ONES, ONES, batch_size=8, epochs=epochs, verbose=0, callbacks=[*callbacks, watch])
    return rates


def test_learning_rate_scheduler_on_top_of_a_schedule() -> None:
    """It asks for half of the current rate in epoch 2, and for the current rate otherwise."""
    halve: Callable[[int, float], float] = lambda epoch, rate: rate / 2 if epoch == 2 else rate  # noqa: E731
    rates = fit(sgd(DECAY), keras.callbacks.LearningRateScheduler(halve))
    assert rates == pytest.approx([1.0, 0.9, 0.4, 0.35])


def test_reduce_on_plateau_on_top_of_a_schedule() -> None:
    """A metric that never improves: halved after the second epoch and each one after."""
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="same", mode="min", factor=0.5, patience=1, min_lr=1e-3)
    constant = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(same=1.0))
    rates = fit(sgd(DECAY), constant, plateau)
    assert rates == pytest.approx([1.0, 0.9, 0.8 / 2, 0.7 / 4])


@pytest.mark.parametrize("rate", [1.0, DECAY], ids=["number", "schedule"])
def test_the_reduced_rate_survives_saving(rate: Any, tmp_path: Any) -> None:
    optimizer = sgd(rate)
    model = line(optimizer)
    model.fit(ONES, ONES, batch_size=4, verbose=0)
    optimizer.learning_rate = current(optimizer) * 0.25
    model.save_weights(tmp_path / "m.weights.h5")
    other = line(sgd(rate))
    other.load_weights(tmp_path / "m.weights.h5")
    for m in (model, other):
        m.fit(ONES, ONES, batch_size=8, verbose=0)
    expected = 0.25 if rate == 1.0 else 0.8 * 0.25
    for m in (model, other):
        assert m.optimizer.statistics().learning_rate == pytest.approx(expected)


def test_rates_are_read_at_updates_not_at_micro_batches() -> None:
    walk = Walk(ck.SGD(DECAY, gradient_accumulation_steps=3, jit_compile=False))
    moved = [walk.step() for _ in range(9)]
    assert moved == pytest.approx([0, 0, 1.0, 0, 0, 0.9, 0, 0, 0.8])


def test_a_skipped_update_does_not_advance_the_schedule() -> None:
    walk = scheduled()
    walk.step()
    walk.optimizer.apply([ops.full((1,), float("nan"))], [walk.w])
    assert walk.step() == pytest.approx(0.9)


def test_step_number_says_where_the_schedule_is_read() -> None:
    walk = scheduled()
    record = walk.optimizer.step([ops.ones((1,), "float64")], [walk.w], step_number=7, return_metrics=True)
    assert record.learning_rate == pytest.approx(0.3)
    assert walk.step() == pytest.approx(0.9)  # which has counted one update

"""Updates that are skipped as spikes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests.clipping.common import norms, sgd
from tests.models import values


def calm(count: int, level: float = 1.0) -> list[float]:
    """Norms with a standard deviation of a tenth of their mean."""
    return list(level * (1 + 0.1 * np.random.default_rng(0).normal(size=count).clip(-3, 3)))


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_spike_is_skipped_bit_for_bit(jit_compile: bool) -> None:
    """Norm 50 after norms around 1: weights, moments and the update count stay; it is counted as a spike."""
    optimizer = ck.Optimizer("adam", 0.1, skip_spikes=6.0, use_ema=True, jit_compile=jit_compile)
    w = keras.Variable([1.0, -0.0])
    for x in calm(30):
        optimizer.apply([ops.array([x, 0.0])], [w])
    state = [*optimizer._state.slots[0], *optimizer._state.averages[0], w]
    before = [v.tobytes() for v in values(state)]
    optimizer.apply([ops.array([50.0, 0.0])], [w])
    assert [v.tobytes() for v in values(state)] == before
    assert optimizer.counters() == {"micro_steps": 31, "skipped": 1, "clipped": 0, "spikes": 1, "dropped": 0}
    assert optimizer.statistics().skipped
    assert optimizer.statistics().gradient_norm == pytest.approx(50.0)
    assert int(optimizer.iterations) == 30
    optimizer.apply([ops.array([1.0, 0.0])], [w])
    assert int(optimizer.iterations) == 31


def test_the_limit_is_so_many_standard_deviations() -> None:
    """Of the last norms: a little below it passes, a little above it does not."""
    series = calm(40)
    limit = np.mean(series) + 5 * np.std(series)
    for x, skipped in ((0.999 * limit, False), (1.001 * limit, True)):
        optimizer = sgd(skip_spikes=5.0)
        norms(optimizer, [*series, x])
        assert optimizer.statistics().skipped == skipped


def test_a_lasting_change_of_level_is_accepted() -> None:
    """The norms of skipped updates are remembered too: before long they are no longer unusual."""
    optimizer = sgd(skip_spikes=5.0)
    norms(optimizer, calm(100))
    moved = norms(optimizer, calm(60, level=20.0))
    skipped = [x == 0 for x in moved]
    first = skipped.index(False)
    assert 1 <= first <= 20
    assert not any(skipped[first:])


def test_the_first_updates_are_never_spikes() -> None:
    """There is nothing yet to measure against."""
    optimizer = sgd(skip_spikes=3.0)
    assert 0.0 not in norms(optimizer, [1.0, 100.0, 1.0, 1e4, 1.0])


def test_constant_norms_are_no_spikes() -> None:
    """Their deviation is 0, or what rounding makes of it."""
    optimizer = sgd(skip_spikes=3.0)
    norms(optimizer, [0.1] * 300)
    assert optimizer.counters()["spikes"] == 0


def test_a_gradient_that_is_not_finite_is_no_spike() -> None:
    """It is skipped for itself, and not remembered."""
    optimizer = sgd(skip_spikes=5.0)
    norms(optimizer, [*calm(40), np.nan, np.inf])
    assert optimizer.counters()["skipped"] == 2
    assert optimizer.counters()["spikes"] == 0
    assert norms(optimizer, [1.0]) == [1.0]


def test_with_accumulation_the_window_is_skipped() -> None:
    optimizer, w = sgd(skip_spikes=5.0, gradient_accumulation_steps=2), keras.Variable([0.0])
    for x in np.repeat(calm(20), 2):
        optimizer.apply([ops.array([x])], [w])
    before = w.numpy().tobytes()
    for x in (1.0, 99.0):
        optimizer.apply([ops.array([x])], [w])
    assert w.numpy().tobytes() == before
    assert optimizer.counters()["spikes"] == 1
    assert optimizer.pending_micro_batches == 0


def test_spikes_pass_by_default() -> None:
    optimizer = sgd()
    assert norms(optimizer, [*calm(40), 1000.0])[-1] == 1000.0
    assert optimizer.counters()["skipped"] == 0


def test_spike_skipping_can_come_later_and_go() -> None:
    optimizer = sgd()
    norms(optimizer, [1.0])
    optimizer.skip_spikes = 5.0
    assert norms(optimizer, [*calm(30), 50.0])[-1] == 0.0
    optimizer.skip_spikes = None
    assert norms(optimizer, [50.0]) == [50.0]


@pytest.mark.parametrize("value", [0, -1.0, True, "5", float("inf")])
def test_bad_sigmas(value: Any) -> None:
    with pytest.raises(ck.ConfigError, match="skip_spikes: expected a number > 0, received"):
        ck.Optimizer("sgd", skip_spikes=value)

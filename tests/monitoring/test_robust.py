"""Rings and robust statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capibara_keras.monitoring.ring import Ring
from capibara_keras.monitoring.robust import block_medians, deviation, kendall_tau, median, theil_sen

FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


@given(FLOATS, st.integers(1, 20), st.integers(0, 30))
def test_ring_is_the_end_of_a_list(values: list[float], size: int, n: int) -> None:
    ring = Ring(size)
    for x in values:
        ring.push(x)
    kept = values[-size:]
    assert ring.last().tolist() == kept
    assert ring.last(n).tolist() == kept[len(kept) - min(n, len(kept)) :]
    assert ring.before(n).tolist() == kept[max(len(kept) - n - 1, 0) : -1]


def test_ring_of_nothing() -> None:
    assert len(Ring(3)) == 0 and Ring(3, 2).last().shape == (0, 2)


def test_ring_of_rows_gives_views() -> None:
    ring = Ring(4, 2)
    for i in range(7):
        ring.push(np.array([i, -i]))
    window = ring.last(3)
    assert window.tolist() == [[4, -4], [5, -5], [6, -6]] and window.base is not None


@given(FLOATS)
def test_median_is_numpys(values: list[float]) -> None:
    assert median(np.array(values)) == pytest.approx(np.median(values))


def test_median_of_nothing_is_unknown() -> None:
    assert np.isnan(median(np.zeros(0))) and np.isnan(deviation(np.zeros(0)))


def test_blocks_are_of_the_newest() -> None:
    assert block_medians(np.array([99.0, 1, 2, 3, 4, 5, 6]), 2).tolist() == [2, 5]


def test_kendall_of_noise_is_small() -> None:
    taus = [kendall_tau(np.random.default_rng(s).normal(size=16)) for s in range(200)]
    assert abs(np.mean(taus)) < 0.05 and np.quantile(np.abs(taus), 0.95) < 0.45


def test_slope_interval_covers_the_truth() -> None:
    """95 % nominally; exactly in 19 of 20."""
    rng, t = np.random.default_rng(0), np.arange(15.0)
    covered = [low <= 0.1 <= high for _, low, high in (theil_sen(t, 0.1 * t + rng.normal(size=15)) for _ in range(300))]
    assert 0.92 <= np.mean(covered) <= 0.99

"""Convergence analysis against curves whose truth is known, and on histories that say nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from capibara_keras import ConfigError
from capibara_keras.monitoring.convergence import STATUSES, ConvergenceAnalysis, analyze


def decaying(n: int = 800, tau: float = 300.0, noise: float = 0.03, seed: int = 0) -> np.ndarray:
    return 1 + np.exp(-np.arange(n) / tau) + noise * np.random.default_rng(seed).normal(size=n)


def holds(found: ConvergenceAnalysis, name: str, truth: float) -> bool:
    low, high = found.intervals[name]
    return low <= truth <= high


def test_exponential() -> None:
    found = analyze(decaying())
    assert (found.status, found.model) == ("converging", "exponential")
    assert found.rate == pytest.approx(1 / 300, rel=0.1)
    assert found.eta_steps == pytest.approx(300 * math.log(100) - 799, rel=0.25)
    assert holds(found, "rate", 1 / 300) and holds(found, "floor", 1.0)
    assert found.noise == pytest.approx(0.03, rel=0.2)


def test_power_law() -> None:
    t = np.arange(2000)
    found = analyze(2 + (1 + t / 50) ** -0.8 + 0.005 * np.random.default_rng(1).normal(size=2000))
    truth = 0.8 / (50 + 1999)
    assert (found.status, found.model) == ("converging", "power")
    assert found.rate == pytest.approx(truth, rel=0.1) and holds(found, "rate", truth)


@pytest.mark.parametrize("scale, shift", [(1e-6, 0.0), (1e6, 0.0), (1.0, -5.0)])
def test_units_of_the_loss_do_not_matter(scale: float, shift: float) -> None:
    plain, changed = analyze(decaying()), analyze(scale * decaying() + shift)
    assert changed.status == plain.status
    assert changed.rate == pytest.approx(plain.rate, rel=1e-4)
    assert changed.stability == pytest.approx(plain.stability, rel=1e-4)


@pytest.mark.parametrize("seed", range(10))
def test_a_plateau_has_no_eta(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=500)
    found = analyze(3 + 0.1 * noise)
    assert found.status == "plateau" and found.rate == 0
    assert math.isnan(found.eta_steps) and found.intervals["eta_steps"][1] == math.inf


def test_constant() -> None:
    found = analyze([2.5] * 100)
    assert (found.status, found.rate, found.floor, found.stability) == ("plateau", 0.0, 2.5, 1.0)
    assert math.isnan(found.eta_steps)


@pytest.mark.parametrize("losses", [[], [1.0], [math.nan], [1.0, None], list(range(19, 0, -1))])
def test_too_little_is_undetermined(losses: list[float]) -> None:
    found = analyze(losses)
    assert found.status == "undetermined"
    assert math.isnan(found.rate) and math.isnan(found.eta_steps) and math.isnan(found.stability)


def test_single_values_that_are_not_finite_are_left_out() -> None:
    losses = decaying()
    losses[[5, 300, 799]] = math.nan, math.inf, math.nan
    found = analyze(losses)
    assert found.status == "converging" and found.points == 797
    assert found.rate == pytest.approx(1 / 300, rel=0.1)


def test_a_broken_end_diverges() -> None:
    found = analyze([*decaying(100), *[math.nan] * 30])
    assert (found.status, found.stability) == ("diverging", 0.0)
    assert analyze(decaying(100), np.full(100, math.nan)).status == "diverging"


def test_rising() -> None:
    t = np.arange(1000) / 1000
    assert analyze(1 + np.exp(-8 * t) + 0.02 * np.exp(5 * t)).status == "diverging"


def test_converged() -> None:
    found = analyze(decaying(n=3000))
    assert (found.status, found.eta_steps) == ("converged", 0.0)


def test_spikes_hardly_move_the_rate() -> None:
    losses = decaying()
    losses[::97] += 20
    assert analyze(losses).rate == pytest.approx(1 / 300, rel=0.1)


def test_a_jump_of_the_rate_starts_anew() -> None:
    """After the jump the loss falls from a new level; the part before it would spoil the fit."""
    losses = np.concatenate([4 + decaying(400, 50), decaying(800)])
    found = analyze(losses, learning_rates=[1.0] * 400 + [0.1] * 800)
    assert found.start == 400 and found.rate == pytest.approx(1 / 300, rel=0.1)


def test_gradient_norms_have_a_rate_of_their_own() -> None:
    norms = np.exp(-np.arange(800) / 600)
    assert analyze(decaying(), norms).gradient_rate == pytest.approx(1 / 600, rel=0.01)
    assert math.isnan(analyze(decaying()).gradient_rate)


def test_a_record_in_both_ways() -> None:
    found = analyze(decaying())
    assert found["rate"] == found.rate and found.status in STATUSES


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"loss_history": [[1.0, 2.0]]}, "loss_history"),
        ({"loss_history": 3.0}, "loss_history"),
        ({"loss_history": [1.0], "smoothing_factor": 1.0}, "smoothing_factor"),
        ({"loss_history": [1.0], "window_size": 0}, "window_size"),
        ({"loss_history": [1.0], "learning_rates": [1.0, 2.0]}, "learning_rates"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        analyze(**arguments)  # type: ignore[arg-type]

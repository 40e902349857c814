"""Bayesian optimisation with a Gaussian process: the default search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.surrogate import fitted, log_expected_improvement, standardised
from capibara_keras.tuning.trials import Search

__all__ = ["propose"]

START = 8
"""Points of a Sobol sequence before the first model."""

GREEDY = 3
"""Every third proposal is where the mean is lowest: with noise, the model's best guess wants to be measured."""

CAUTION = 3
"""Weight of the probability that a trial does not fail: with 1, half of the proposals failed where the best
configurations lie beside ones that diverge."""

CANDIDATES = 1024
"""Random points at which the acquisition is evaluated; the best are then refined."""


def propose(search: Search, number: int) -> Values:
    """The configuration with the largest expected improvement, and that is likely to train at all.

    The losses are modelled by a Gaussian process with a Matérn-5/2 kernel, one length scale per column of
    `SearchSpace.features`, and noise that is learned; all by their maximum a posteriori (Rasmussen & Williams 2006,
    chapters 4 and 5). Losses far above the median count as less far. The acquisition is the logarithm of the expected
    improvement over the best mean (Ament et al. 2023), plus that of the probability that the trial does not fail, by
    a second process over which trials did (Gelbart et al. 2014, eq. 4).

    Args:
        search: space and trials so far.
        number: of the trial; with the seed it decides all random numbers.
    """
    space = search.space
    known = [t for t in search.trials if t.done or t.status == "running"]
    losses = np.array([search.loss(t) if t.done else math.nan for t in known])
    if number < START or not np.isfinite(losses).any():
        return space.values(sobol(len(space.dimensions), search.seed, number))
    features = np.array([space.features(t.options) for t in known])
    order = np.argsort(losses, kind="stable")
    elite = [space.units(known[i].options) for i in order[:5] if math.isfinite(losses[i])]
    score = _acquisition(features, losses, search.seed, greedy=number % GREEDY == 0)
    best = _maximum(
        lambda points: score(np.array([space.features(space.values(point)) for point in points])),
        elite,
        np.random.default_rng([search.seed, number]),
    )
    return space.values(best)


def sobol(dimensions: int, seed: int, index: int) -> np.ndarray:
    """A point of a scrambled Sobol sequence in the unit cube."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about numbers of points that are no power of two
        sequence = qmc.Sobol(dimensions, seed=seed)
        return np.asarray(sequence.random(index + 1)[index])


def _acquisition(
    features: np.ndarray, losses: np.ndarray, seed: int, *, greedy: bool
) -> Callable[[np.ndarray], np.ndarray]:
    """How much a trial at some features is worth; `losses` are `inf` for failures, `nan` for what is not known."""
    from scipy.special import log_ndtr

    failed = np.isinf(losses)
    model = fitted(features[~failed], standardised(losses[~failed]), seed)
    best = model.predict(features[~failed]).min()
    fails = fitted(features, np.where(failed, 1.0, -1.0), seed) if failed.any() else None

    def value(points: np.ndarray) -> np.ndarray:
        mean, total = model.predict(points, return_std=True)
        deviation = np.sqrt(np.maximum(total**2 - model.kernel_.k2.noise_level, 1e-12))
        worth = -mean if greedy else log_expected_improvement((best - mean) / deviation) + np.log(deviation)
        if fails is not None:
            middle, spread = fails.predict(points, return_std=True)
            log_probability = log_ndtr(-middle / np.maximum(spread, 1e-6))
            worth += 10 * np.minimum(log_probability - math.log(0.8), 0) if greedy else CAUTION * log_probability
        return np.asarray(worth)

    return value


def _maximum(
    value: Callable[[np.ndarray], np.ndarray], elite: Sequence[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """The best point of the unit cube, among random ones, ones near the `elite`, and ones near the best of those."""
    points = np.vstack([rng.random((CANDIDATES, len(elite[0]))), _near(elite, 0.2, rng), _near(elite, 0.03, rng)])
    for width in (0.1, 0.03, 0.01):
        top = points[np.argsort(-value(points), kind="stable")[:8]]
        points = np.vstack([top, _near(list(top), width, rng, CANDIDATES // 4)])
    return np.asarray(points[int(np.argmax(value(points)))])


def _near(centres: Sequence[np.ndarray], width: float, rng: np.random.Generator, count: int = 128) -> np.ndarray:
    """Points around others; each differs from its centre in some coordinates."""
    chosen = np.array(centres)[rng.integers(len(centres), size=count)]
    moved = rng.random(chosen.shape) < max(0.5, 1 / chosen.shape[1])
    points = np.where(moved, chosen + width * rng.normal(size=chosen.shape), chosen)
    return np.clip(points, 0, 1)

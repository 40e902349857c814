"""Bayesian optimisation with a Gaussian process: the default search."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from capibara_keras.tuning.search_space import SearchSpace, Values
from capibara_keras.tuning.trials import Search

__all__ = ["propose"]

START = 8
"""Points of a Sobol sequence before the first model."""

CANDIDATES = 1024
"""Points at which the acquisition is evaluated, in each of the two rounds."""


def propose(search: Search, number: int) -> Values:
    """The configuration with the largest expected improvement.

    The losses are modelled by a Gaussian process with a Matérn-5/2 kernel, one length scale per column of
    `SearchSpace.features`, and noise that is learned; all by their maximum a posteriori (Rasmussen & Williams 2006,
    chapters 4 and 5). Losses far above the median count as less far, and those of failed trials as the worst. The
    acquisition is the logarithm of the expected improvement over the best mean (Ament et al. 2023).

    Args:
        search: space and trials so far.
        number: of the trial; with the seed it decides all random numbers.
    """
    space = search.space
    ended = [t for t in search.trials if t.done]
    if number < START or not any(math.isfinite(search.loss(t)) for t in ended):
        return space.values(sobol(len(space.dimensions), search.seed, number))
    known = [t for t in search.trials if t.done or t.status == "running"]
    features = np.array([space.features(t.options) for t in known])
    targets = standardised([search.loss(t) if t.done else math.nan for t in known])
    model = fitted(features, targets, search.seed)
    rng = np.random.default_rng([search.seed, number])
    best = model.predict(features).min()
    order = np.argsort(targets, kind="stable")
    elite = [space.units(known[i].options) for i in order[:5]]
    points = np.vstack(
        [rng.random((CANDIDATES, len(space.dimensions))), _near(elite, 0.2, rng), _near(elite, 0.03, rng)]
    )
    for width in (0.1, 0.03, 0.01):
        scores = _acquisition(model, space, points, best)
        top = points[np.argsort(-scores, kind="stable")[:8]]
        points = np.vstack([top, _near(list(top), width, rng, CANDIDATES // 4)])
    scores = _acquisition(model, space, points, best)
    return space.values(points[int(np.argmax(scores))])


def sobol(dimensions: int, seed: int, index: int) -> np.ndarray:
    """A point of a scrambled Sobol sequence in the unit cube."""
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about numbers of points that are no power of two
        sequence = qmc.Sobol(dimensions, seed=seed)
        return np.asarray(sequence.random(index + 1)[index])


def standardised(losses: Sequence[float]) -> np.ndarray:
    """Losses for the model: what lies far above the median is pulled towards it, what is not finite is the worst, what
    is not known (`nan`, of running trials) too, so that another worker goes elsewhere; then mean 0, deviation 1."""
    y = np.array(losses, float)
    finite = y[np.isfinite(y)]
    median, low = np.median(finite), finite.min()
    scale = max(median - low, 1e-12)
    above = finite > median
    squeezed = finite.copy()
    squeezed[above] = median + scale * np.log1p((finite[above] - median) / scale)
    worst = min(squeezed.max(), median + 2 * scale)
    y[np.isfinite(y)] = np.minimum(squeezed, worst)
    y[~np.isfinite(y)] = worst
    return (y - y.mean()) / max(y.std(), 1e-12)


def fitted(features: np.ndarray, targets: np.ndarray, seed: int) -> Any:
    """A Gaussian process whose hyperparameters maximise likelihood times prior."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    columns = features.shape[1]
    length = 0.5 * math.sqrt(columns)
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(np.full(columns, length), (0.05, 50.0), nu=2.5)
    kernel += WhiteKernel(0.01, (1e-6, 1.0))
    prior = _Prior(
        mean=np.array([0.0, *[math.log(length)] * columns, math.log(0.01)]),
        deviation=np.array([1.0, *[1.0] * columns, 2.0]),
    )
    process = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=prior.maximise, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about length scales at their bounds: the prior is meant to hold them
        return process.fit(features, targets)


class _Prior:
    """Normal priors of the logarithms of a kernel's hyperparameters."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        self.mean, self.deviation = mean, deviation

    def maximise(self, objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
        """The minimum of the negative log posterior, for scikit-learn."""
        from scipy.optimize import minimize

        def posterior(theta: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = objective(theta)
            z = (theta - self.mean) / self.deviation
            return value + 0.5 * float(z @ z), slope + z / self.deviation

        found = minimize(posterior, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 50})
        return found.x, float(found.fun)


def _acquisition(model: Any, space: SearchSpace, points: np.ndarray, best: float) -> np.ndarray:
    features = np.array([space.features(space.values(point)) for point in points])
    mean, deviation = model.predict(features, return_std=True)
    noise = model.kernel_.k2.noise_level
    deviation = np.sqrt(np.maximum(deviation**2 - noise, 1e-12))
    return log_expected_improvement((best - mean) / deviation) + np.log(deviation)


def log_expected_improvement(z: np.ndarray) -> np.ndarray:
    """log(φ(z) + z Φ(z)), also far below 0, where the sum is smaller than any float (Ament et al. 2023, eq. 9).

    >>> log_expected_improvement(np.array([0.0, -50.0])).round(3).tolist()
    [-0.919, -1258.744]
    """
    from scipy.special import erfcx, ndtr

    z = np.asarray(z, float)
    phi = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    near = np.log(np.maximum(np.exp(phi) + z * ndtr(z), 1e-300))
    low = np.minimum(z, -1.0)
    ratio = math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2)) * -low  # |z| Φ(z) / φ(z), close to 1
    far = phi + np.where(low < -1e3, -2 * np.log(-low), np.log(np.maximum(1 - ratio, 1e-300)))
    return np.where(z > -1, near, far)


def _near(centres: Sequence[np.ndarray], width: float, rng: np.random.Generator, count: int = 128) -> np.ndarray:
    """Points around others; each differs from its centre in some coordinates."""
    chosen = np.array(centres)[rng.integers(len(centres), size=count)]
    moved = rng.random(chosen.shape) < max(0.5, 1 / chosen.shape[1])
    points = np.where(moved, chosen + width * rng.normal(size=chosen.shape), chosen)
    return np.clip(points, 0, 1)

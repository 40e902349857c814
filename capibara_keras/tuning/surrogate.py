"""The Gaussian process that stands for the loss, and what is expected of a point."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["fitted", "log_expected_improvement", "standardised"]

NOISE = 0.03
"""Variance of the noise, as a share of that of the losses, before any was seen."""


def standardised(losses: Sequence[float]) -> np.ndarray:
    """Losses for the model: what lies far above the median is pulled towards it; what is not known (`nan`, of running
    trials) counts as the worst, so that another worker goes elsewhere; then mean 0, deviation 1."""
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
    kernel += WhiteKernel(NOISE, (1e-6, 1.0))
    prior = _Prior(
        mean=np.array([0.0, *[math.log(length)] * columns, math.log(NOISE)]),
        deviation=np.ones(columns + 2),
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

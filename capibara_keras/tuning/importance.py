"""What the trials of a search say: how it went on, and which options mattered."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.tuning.surrogate import fitted, standardised
from capibara_keras.tuning.trials import Search

__all__ = ["best_so_far", "importance"]


def best_so_far(search: Search) -> list[float]:
    """After each trial the best score of those measured in full; `nan` before the first."""
    result, best = [], math.nan
    for trial in search.trials:
        if trial.status == "completed":
            better = math.isnan(best) or search.loss(trial) < (-best if search.maximize else best)
            best = trial.score if better else best
        result.append(best)
    return result


def importance(search: Search) -> dict[str, float]:
    """Share of each option in the variance of the loss over the space, that of interactions left out; `nan` with
    fewer than 8 scores.

    First-order Sobol indices (Saltelli et al. 2010, eq. b of Table 2) of the mean of the Gaussian process.
    """
    scored = [t for t in search.trials if t.done and math.isfinite(search.loss(t))]
    names = [d.name for d in search.space.searched]
    if len(scored) < 8:
        return dict.fromkeys(names, math.nan)
    features = np.array([search.space.features(t.options) for t in scored])
    model = fitted(features, standardised([search.loss(t) for t in scored]), search.seed)
    rng = np.random.default_rng(search.seed)
    a, b = rng.random((2, 1024, len(search.space.dimensions)))

    def mean(points: np.ndarray) -> np.ndarray:
        values = [search.space.features(search.space.values(point)) for point in points]
        return np.asarray(model.predict(np.array(values)))

    f_a, f_b = mean(a), mean(b)
    variance = max(float(np.var(np.concatenate([f_a, f_b]))), 1e-12)
    shares = {}
    for i, d in enumerate(search.space.dimensions):
        if not d.fixed:
            mixed = a.copy()
            mixed[:, i] = b[:, i]
            shares[d.name] = float(np.clip(np.mean(f_b * (mean(mixed) - f_a)) / variance, 0, 1))
    return shares

"""Directions in the space of weights: random ones that respect the scale of filters, and the plane of a path.

Weights are lists of arrays, one per variable, and are never joined to one long vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from capibara_keras import errors

__all__ = ["PathPlane", "filter_normalised", "path_plane", "random_walk_share"]

Weights = Sequence[np.ndarray]


def filter_normalised(weights: Weights, generator: np.random.Generator) -> list[np.ndarray]:
    """A random direction whose filters are as long as those of the weights (Li et al. 2018, equation 1).

        d_ij <- d_ij / ‖d_ij‖ · ‖θ_ij‖        d ~ N(0, 1)

    A filter is what shares an index of the last axis, which in Keras is that of the outputs. Arrays of fewer than two
    axes (biases, scales of a normalisation) get 0, as in the paper.

    >>> d = filter_normalised([np.array([[3.0, 0.0], [4.0, 0.0]]), np.ones(2)], np.random.default_rng(0))
    >>> np.linalg.norm(d[0], axis=0).tolist(), d[1].tolist()
    ([5.0, 0.0], [0.0, 0.0])
    """
    directions = []
    for w in weights:
        if w.ndim < 2:
            directions.append(np.zeros_like(w))
            continue
        axes = tuple(range(w.ndim - 1))
        d = generator.standard_normal(w.shape, np.float32).astype(w.dtype)
        lengths = np.sqrt(np.sum(np.square(d, dtype=np.float64), axes))
        wanted = np.sqrt(np.sum(np.square(w, dtype=np.float64), axes))
        directions.append((d * (wanted / np.maximum(lengths, 1e-30))).astype(w.dtype))
    return directions


class PathPlane(NamedTuple):
    """The plane that a path of checkpoints stays closest to.

    Attributes:
        directions: two orthogonal directions of length 1, over all variables together.
        coordinates: of shape (checkpoints, 2): the checkpoints, projected; the last one is (0, 0).
        explained: share of the path's variance along each direction.
    """

    directions: tuple[list[np.ndarray], list[np.ndarray]]
    coordinates: np.ndarray
    explained: tuple[float, float]


def path_plane(checkpoints: Sequence[Weights]) -> PathPlane:
    """Principal components of checkpoints, from the k × k matrix of their products (Li et al. 2018, section 7).

    With X the checkpoints as rows, centred, and X Xᵀ u = λ u, a direction is Xᵀ u / √λ: nothing of the size n × n of
    the weights is made.

    Raises:
        ConfigError: fewer than three checkpoints, or they lie on one line.

    >>> path = [[np.array([[0.0, 0.0]])], [np.array([[4.0, 3.0]])], [np.array([[8.0, 0.0]])]]
    >>> plane = path_plane(path)
    >>> np.round(np.abs(plane.coordinates), 6).tolist(), np.round(plane.explained, 2).tolist()
    ([[8.0, 0.0], [4.0, 3.0], [0.0, 0.0]], [0.84, 0.16])
    """
    k = len(checkpoints)
    if k < 3:
        raise errors.ConfigError(f"checkpoints: a plane needs at least 3, received {k}")
    gram = np.zeros((k, k))
    for row in zip(*checkpoints, strict=True):
        x = np.stack([np.asarray(w, np.float64).ravel() for w in row])
        x -= x.mean(0)
        gram += x @ x.T
    finite = bool(np.isfinite(gram).all())
    values, vectors = np.linalg.eigh(gram if finite else np.zeros((k, k)))
    values, vectors = values[::-1], vectors[:, ::-1]
    if values[1] <= 1e-12 * values[0] or values[0] <= 0:
        raise errors.ConfigError(
            "checkpoints: they are equal, not finite, or lie on one line, and span no plane; "
            "`loss_landscape` draws a line"
        )
    roots = np.sqrt(values[:2])
    shares = vectors[:, :2] / roots
    directions: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for row in zip(*checkpoints, strict=True):
        mean = np.mean([np.asarray(w, np.float64) for w in row], axis=0)
        for j, direction in enumerate(directions):
            d = sum(share * (np.asarray(w, np.float64) - mean) for share, w in zip(shares[:, j], row, strict=True))
            direction.append(np.asarray(d, row[0].dtype))
    places = vectors[:, :2] * roots
    explained = values[:2] / values.sum()
    return PathPlane(directions, places - places[-1], (float(explained[0]), float(explained[1])))


def random_walk_share(points: int) -> float:
    """Share of variance that two principal components explain of a pure random walk of so many points, in a space of
    many dimensions (Antognini & Sohl-Dickstein 2018). It says how little a large share means.

    The products of the points of a walk are min(i, j) in the mean.

    >>> round(random_walk_share(10), 2), round(random_walk_share(100), 2)
    (0.78, 0.76)
    """
    i = np.arange(points)
    gram = np.minimum.outer(i, i).astype(np.float64)
    gram -= gram.mean(0)
    gram -= gram.mean(1, keepdims=True)
    values = np.linalg.eigvalsh(gram)
    return float(values[-2:].sum() / values.sum())

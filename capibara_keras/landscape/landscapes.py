"""Along a random line, on a random plane, and on the plane of the path of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.landscape.loss import Weights, computable, evaluation
from capibara_keras.monitoring.directions import filter_normalised, path_plane, random_walk_share
from capibara_keras.monitoring.landscape import LossLine, LossPlane
from capibara_keras.types import Variable

__all__ = ["around", "loss_landscape", "trajectory_plane"]

POINTS = {"line": 41, "plane": 21}
"""Along each direction, unless told otherwise."""


def loss_landscape(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    kind: str = "line",
    points: int | None = None,
    span: float = 1.0,
    seed: int = 0,
    sample_weight: Any = None,
    batch_size: int | None = None,
    verbose: bool = True,
) -> LossLine | LossPlane:
    """The loss along a random line, or on a random plane, through the weights of a model (Li et al. 2018).

    Directions are filter-normalised, so that models of other scales can be compared: each filter of a direction is as
    long as that of the weights, biases and other variables of one axis stay. The loss is that of `compile`, with
    regularisation, in inference mode; normalisations use the statistics that they have. Frozen variables stay.

    Afterwards all variables are as before, bit for bit: weights, statistics, seed generators, metrics, and the
    optimizer's state.

    Args:
        model: built and compiled.
        x, y, sample_weight: the batch that every point is evaluated on: arrays, or nested arrays.
        kind: "line" or "plane".
        points: along each direction, odd, so that the middle is the model itself. Default: 41 for a line, 21 for a
            plane (441 evaluations).
        span: reach to both sides; 1 moves each filter by its own length.
        seed: of the directions.
        batch_size: samples at a time, where they do not fit into memory at once. Default: all.
        verbose: show a progress bar when it takes more than two seconds.

    Raises:
        ConfigError: no model, or one without weights, without a loss, of a distribution strategy, or within a window of
            micro-batches; inside a tf.function; no data; a loss that is not finite at the weights themselves; or an
            argument out of range.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="ones")])
    >>> model.compile("sgd", "mse")
    >>> line = ck.loss_landscape(model, np.ones((8, 1)), np.ones((8, 1)), points=5, verbose=False)
    >>> line.distances.tolist(), line.losses.tolist()
    ([-1.0, -0.5, 0.0, 0.5, 1.0], [1.0, 0.25, 0.0, 0.25, 1.0])
    """
    kind = errors.choice("kind", kind, POINTS)
    points = _odd("points", POINTS[kind] if points is None else points)
    span = errors.number("span", span, 0, open_low=True)
    seed = errors.integer("seed", seed, 0)
    distances = np.linspace(-span, span, points)
    with evaluation("loss_landscape", model, x, y, sample_weight, batch_size) as loss:
        generator, origin = np.random.default_rng(seed), loss.origin
        directions = [filter_normalised(origin, generator) for _ in range(1 if kind == "line" else 2)]
        if not any(d.any() for d in directions[0]):
            raise errors.ConfigError(
                f"loss_landscape: no trainable variable of {model.name} has two axes and is not 0: no direction"
            )
        if kind == "line":
            losses = loss.at(directions, distances[:, None], verbose)
            return LossLine(distances, losses, seed, loss.samples)
        losses = loss.at(directions, _grid(distances, distances), verbose)
        return LossPlane(distances, distances, losses.reshape(points, points), seed, loss.samples)


def trajectory_plane(
    model: Any,
    checkpoints: Any,
    x: Any,
    y: Any = None,
    *,
    points: int = 21,
    margin: float = 0.25,
    sample_weight: Any = None,
    batch_size: int | None = None,
    verbose: bool = True,
) -> LossPlane:
    """The loss on the plane that the path of training stays closest to (Li et al. 2018, section 7).

    The plane goes through the last checkpoint; its directions are the first two principal components of all. Most of a
    path's variance lies in it, but that says little: a random walk has as much (Antognini & Sohl-Dickstein 2018). The
    result carries both numbers. The loss is as in `loss_landscape`, and so is what is left behind: nothing.

    Args:
        model: built and compiled; its normalisations use the statistics that they have now.
        checkpoints: the callback `Trajectory`; or a list of at least three, each a list of arrays, one for each of
            `model.trainable_variables`.
        x, y, sample_weight: the batch that every point is evaluated on.
        points: along each direction.
        margin: how far the plane goes beyond the path, as a share of its extent.
        batch_size, verbose: as in `loss_landscape`.

    Raises:
        ConfigError: as `loss_landscape`; checkpoints of other shapes, fewer than three, or on one line.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile("sgd", "mse")
    >>> path = [[np.array([[a], [b]])] for a, b in [(0, 0), (2, 1), (4, 1), (5, 0)]]
    >>> plane = ck.trajectory_plane(model, path, np.ones((8, 2)), np.ones((8, 1)), points=5, verbose=False)
    >>> plane.losses.shape, round(plane.explained, 2)
    ((5, 5), 1.0)
    """
    points = errors.integer("points", points, 3)
    margin = errors.number("margin", margin, 0)
    updates = tuple(getattr(checkpoints, "updates", ()))
    with evaluation("trajectory_plane", model, x, y, sample_weight, batch_size) as loss:
        path = _checkpoints(getattr(checkpoints, "checkpoints", checkpoints), loss.variables)
        plane = path_plane(path)
        loss.origin = path[-1]
        axes = [_reach(plane.coordinates[:, i], margin, points) for i in range(2)]
        losses = loss.at(plane.directions, _grid(*axes), verbose)
        return LossPlane(
            x=axes[0],
            y=axes[1],
            losses=losses.reshape(points, points),
            seed=-1,
            samples=loss.samples,
            path=plane.coordinates,
            path_updates=updates,
            explained=sum(plane.explained),
            random_walk=random_walk_share(len(path)),
        )


def around(landscape: Any, model: Any, batch: Any) -> LossLine | LossPlane | None:
    """A landscape that is given, or that of a model on a batch; `None` without either.

    Raises:
        ConfigError: both, a model without a batch or the other way round, or something else than a landscape.
    """
    if landscape is not None and not isinstance(landscape, (LossLine, LossPlane)):
        raise errors.ConfigError(f"landscape: expected what `loss_landscape` returns, received {landscape!r}")
    if (model is None) != (batch is None) or (landscape is not None and model is not None):
        raise errors.ConfigError("give `landscape`, or both `model` and `batch`: a landscape needs a model and data")
    if model is None:
        return landscape
    if not isinstance(batch, (tuple, list)) or not 1 <= len(batch) <= 3:
        raise errors.ConfigError(f"batch: expected (x, y) or (x, y, sample_weight), received {type(batch).__name__}")
    x, y, weights = (*batch, None, None)[:3]
    return loss_landscape(model, x, y, sample_weight=weights)


def _checkpoints(given: Any, variables: Sequence[Variable]) -> list[Weights]:
    shapes = [tuple(v.shape) for v in variables]
    try:
        path = [[computable(np.asarray(w)) for w in checkpoint] for checkpoint in given]
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(f"checkpoints: expected a list of lists of arrays, received {given!r}") from error
    for i, checkpoint in enumerate(path):
        found = [w.shape for w in checkpoint]
        if found != shapes:
            raise errors.ConfigError(
                f"checkpoints[{i}]: expected the shapes of model.trainable_variables, {shapes}, received {found}"
            )
    return path


def _odd(name: str, value: Any) -> int:
    value = errors.integer(name, value, 3)
    if value % 2 == 0:
        raise errors.ConfigError(f"{name}: expected an odd number, so that the middle is the model, received {value}")
    return value


def _grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pairs of coordinates, x the faster."""
    return np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], axis=1)


def _reach(path: np.ndarray, margin: float, points: int) -> np.ndarray:
    extra = margin * np.ptp(path)
    return np.linspace(path.min() - extra, path.max() + extra, points)

"""Recent values in a ring of fixed size, inside the compiled step."""

from __future__ import annotations

from keras import ops

from capibara_keras.types import Scalar, Tensor

__all__ = ["percentile", "push", "spread"]


def push(ring: Tensor, count: Tensor, values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Put a value into each row, over the oldest one once the row is full.

    Args:
        ring: shape (rows, length); NaN where nothing was put yet.
        count: shape (rows,), integers: values put into each row so far.
        values: shape (rows,).
        keep: boolean, shape (rows,) or (): rows where it is false stay as they are.

    >>> import numpy as np
    >>> ring, count = push(ops.full((1, 3), float("nan")), ops.zeros(1, "int32"), ops.array([2.0]), ops.array(True))
    >>> ring.numpy().tolist(), count.numpy().tolist()
    ([[2.0, nan, nan]], [1])
    """
    length = ring.shape[1]
    here = ops.expand_dims(count % length, 1) == ops.arange(length, dtype=count.dtype)
    keep = ops.broadcast_to(keep, values.shape)
    ring = ops.where(ops.logical_and(here, keep[:, None]), ops.cast(values, ring.dtype)[:, None], ring)
    return ring, count + ops.cast(keep, count.dtype)


def percentile(ring: Tensor, q: Scalar) -> Tensor:
    """The q-th percentile of each row, with linear interpolation; unfilled (NaN) places do not count.

    >>> percentile(ops.array([[1.0, 3.0, float("nan")]]), 50.0).numpy().tolist()
    [2.0]
    """
    filled = ops.logical_not(ops.isnan(ring))
    ordered = ops.sort(ops.where(filled, ring, ops.full_like(ring, float("inf"))), axis=1)
    last = ops.cast(ops.sum(ops.cast(filled, "int32"), axis=1), ring.dtype) - 1
    position = ops.maximum(last, 0) * ops.cast(q, ring.dtype) / 100
    below = ops.floor(position)
    low = _at(ordered, ops.cast(below, "int32"))
    high = _at(ordered, ops.cast(ops.minimum(below + 1, ops.maximum(last, 0)), "int32"))
    weight = position - below
    return ops.where(weight > 0, low + (high - low) * weight, low)


def spread(ring: Tensor) -> tuple[Scalar, Scalar, Scalar]:
    """Mean, standard deviation and number of the filled places of a ring of one row.

    >>> [float(x) for x in spread(ops.array([[1.0, 3.0, float("nan")]]))]
    [2.0, 1.0, 2.0]
    """
    filled = ops.logical_not(ops.isnan(ring))
    n = ops.sum(ops.cast(filled, ring.dtype))
    x = ops.where(filled, ring, ops.zeros_like(ring))
    mean = ops.sum(x) / ops.maximum(n, 1)
    deviation = ops.where(filled, ring - mean, ops.zeros_like(ring))
    return mean, ops.sqrt(ops.sum(deviation * deviation) / ops.maximum(n, 1)), n


def _at(rows: Tensor, columns: Tensor) -> Tensor:
    """rows[i, columns[i]] for each i."""
    return ops.take_along_axis(rows, columns[:, None], axis=1)[:, 0]

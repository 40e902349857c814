"""What is looked at inside the update only when a monitor asks, because it costs more than a norm."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from capibara_keras import backend
from capibara_keras.types import Scalar, Tensor

__all__ = ["ENTRIES", "MICRO_BATCHES", "NUMBERS", "active", "alignment", "entries", "unit_sizes", "watched"]

ENTRIES = ("zero_share", "half_grid")
"""What `entries` returns."""

NUMBERS = ("dot", "square")
"""What `alignment` returns."""

MICRO_BATCHES = ("open", "square", "update", "count")
"""With accumulation: the sum of the squared norms of the window's micro-batches, nan if they are not measured; then of
the last update of which they were, the mean, the number (skipped ones counted) and how many micro-batches it had."""

SMALLEST_NORMAL, SMALLEST = 2.0**-14, 2.0**-24
"""Of float16: the smallest number at full precision, and the smallest one of all."""


def watched(paths: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """The biases that have a matrix before them in their layer: each of their entries is a unit.

    >>> watched(["a/kernel", "a/bias", "norm/gamma", "norm/beta"], [(2, 3), (3,), (3,), (3,)])
    [1]
    """
    layers = [path.rpartition("/")[0] for path in paths]
    return [
        i
        for i in range(1, len(paths))
        if len(shapes[i]) == 1
        and len(shapes[i - 1]) >= 2
        and layers[i] == layers[i - 1] != ""
        and shapes[i][0] == shapes[i - 1][-1]
    ]


def active(last: Tensor, biases: Sequence[Tensor | None], sizes: Sequence[int], now: Scalar) -> Tensor:
    """When each unit last had a gradient.

    Args:
        last: integers, one per unit of all layers.
        biases: gradients; that of a bias is the sum over the batch of what reaches the unit, and exactly 0 where
            nothing does. `None` for no gradient at all, which is no matter of units.
        sizes: units of each layer.
        now: the number of this update.
    """
    if not biases:
        return last
    reached = [ops.ones((n,), "bool") if g is None else g != 0 for g, n in zip(biases, sizes, strict=True)]
    return ops.where(ops.concatenate(reached), ops.cast(now, last.dtype), last)


def entries(g: Tensor) -> tuple[Scalar, Scalar]:
    """Share of entries that are 0; and how many are below 2^-14 without being 0, if all of these are multiples of
    2^-24, as the subnormal numbers of float16 are (else 0).

    >>> [float(x) for x in entries(ops.array([0.0, 2.0**-24, 3 * 2.0**-24, 1.0]))]
    [0.25, 2.0]
    """
    size, zero = ops.abs(g), g == 0
    small = ops.logical_and(size < SMALLEST_NORMAL, ops.logical_not(zero))
    steps = size / SMALLEST
    off = ops.logical_and(small, steps != ops.round(steps))
    count = ops.sum(ops.cast(small, g.dtype))
    return ops.mean(ops.cast(zero, g.dtype)), ops.where(ops.any(off), ops.zeros_like(count), count)


def alignment(g: Tensor, average: Tensor | None) -> tuple[Scalar, Scalar]:
    """The product of a gradient with an average of those before it, and with itself; nan where none is kept.

    >>> [float(x) for x in alignment(ops.array([1.0, 2.0]), ops.array([3.0, 4.0]))]
    [11.0, 5.0]
    """
    if average is None:
        nan = ops.full((), float("nan"), g.dtype)
        return nan, nan
    return backend.inner(g, average), backend.sum_of_squares(g)


def unit_sizes(paths: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Units of each watched bias."""
    return [shapes[i][0] for i in watched(paths, shapes)]

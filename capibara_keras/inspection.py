"""Looking at weights and state from outside of the update: samples of them, every so many updates."""

from __future__ import annotations

import numpy as np
from keras import ops

from capibara_keras import backend
from capibara_keras.types import Tensor, Variable

__all__ = ["below_epsilon", "equal_columns"]

SIDE, SAMPLES = 64, 4096
"""Rows and columns, and entries, that are looked at of each variable."""

SMALL = 1 << 16
"""Entries up to which copying a variable costs less than cutting it on the device."""


def equal_columns(variable: Variable) -> float:
    """Share of a matrix' columns that equal its first one, to 1e-5 of its size; nan for what is no matrix.

    >>> equal_columns(ops.ones((3, 2)))
    1.0
    """
    shape = tuple(variable.shape)
    if len(shape) < 2 or shape[-1] < 2:
        return float("nan")
    part = _host(_shaped(variable, (-1, shape[-1]))[:SIDE, :SIDE])
    first = part[:, :1]
    size = np.abs(first).max()
    if not size > 0:  # zeros are a usual start for a last layer, and its columns get different gradients
        return 0.0
    return float((np.abs(part[:, 1:] - first).max(0) <= 1e-5 * size).mean())


def below_epsilon(second_moment: Tensor, correction: float, epsilon: float) -> float:
    """Share of entries whose root of the second moment is below epsilon, of those where it is not 0; nan if all are.

    Args:
        second_moment: a running mean of squared gradients.
        correction: what it is divided by for its start at 0.

    >>> below_epsilon(ops.array([0.0, 1e-18, 1.0]), 1.0, 1e-8)
    0.5
    """
    size = int(np.prod(second_moment.shape))
    values = _host(_shaped(second_moment, (-1,))[:: max(1, size // SAMPLES)])
    values = values[values > 0] / correction
    return float((np.sqrt(values) < epsilon).mean()) if len(values) else float("nan")


def _shaped(x: Variable | Tensor, shape: tuple[int, ...]) -> np.ndarray | Tensor:
    """Small ones on the host, large ones where they are."""
    if np.prod(x.shape) <= SMALL:
        return backend.fetch(x).reshape(shape)
    return ops.reshape(ops.convert_to_tensor(x), shape)


def _host(x: np.ndarray | Tensor) -> np.ndarray:
    return np.asarray(x if isinstance(x, np.ndarray) else ops.convert_to_numpy(x), np.float64)

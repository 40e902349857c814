"""Looking at weights and state from outside of the update: samples of them, every so many updates."""

from __future__ import annotations

import numpy as np
from keras import ops

from capibara_keras.types import Tensor, Variable

__all__ = ["below_epsilon", "equal_columns"]

SIDE, SAMPLES = 64, 4096
"""Rows and columns, and entries, that are looked at of each variable."""


def equal_columns(variable: Variable) -> float:
    """Share of a matrix' columns that equal its first one, to 1e-5 of its size; nan for what is no matrix.

    >>> equal_columns(ops.ones((3, 2)))
    1.0
    """
    shape = tuple(variable.shape)
    if len(shape) < 2 or shape[-1] < 2:
        return float("nan")
    rows = ops.reshape(ops.convert_to_tensor(variable), (-1, shape[-1]))
    part = np.asarray(ops.convert_to_numpy(rows[:SIDE, :SIDE]), np.float64)
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
    flat = ops.reshape(ops.convert_to_tensor(second_moment), (-1,))
    values = np.asarray(ops.convert_to_numpy(flat[:: max(1, size // SAMPLES)]), np.float64)
    values = values[values > 0] / correction
    return float((np.sqrt(values) < epsilon).mean()) if len(values) else float("nan")

"""Gradients and variables as they are handed over: checked before anything is computed or written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from capibara_keras import backend, errors
from capibara_keras.types import Tensor, Variable
from capibara_keras.variables import path_of

__all__ = ["aligned_gradients", "checked_variables"]


def checked_variables(caller: str, variables: Iterable[Variable], hint: str = "") -> list[Variable]:
    """`variables` as a list, if they are variables that can be trained, each given once.

    Args:
        caller: the method, for the message.
        hint: where what is no variable probably belongs.

    Raises:
        ConfigError: names what is wrong, and what to give instead.

    >>> checked_variables("build", [keras.Variable([1], name="count", dtype="int32")])
    Traceback (most recent call last):
        ...
    capibara_keras.errors.ConfigError: build: variable count is of dtype int32; only real floating-point ones can be \
trained
    """
    if hasattr(variables, "assign") or not isinstance(variables, Iterable):
        instead = "; give its `trainable_variables`" if hasattr(variables, "trainable_variables") else ""
        raise errors.ConfigError(
            f"{caller}: expected a list of variables, received a {type(variables).__name__}{instead}"
        )
    result = list(variables)
    for v in result:
        if not hasattr(v, "assign"):
            raise errors.ConfigError(
                f"{caller}: expected variables, received a {type(v).__name__}{hint and f'. {hint}'}"
            )
        dtype = keras.backend.standardize_dtype(v.dtype)
        if not keras.backend.is_float_dtype(dtype):
            raise errors.ConfigError(
                f"{caller}: variable {path_of(v)} is of dtype {dtype}; only real floating-point ones can be trained"
            )
    if len({id(v) for v in result}) < len(result):
        twice = next(v for i, v in enumerate(result) if any(v is other for other in result[:i]))
        raise errors.ConfigError(f"{caller}: variable {path_of(twice)} is given twice; give each variable once")
    return result


def aligned_gradients(caller: str, grads: Any, variables: Sequence[Variable]) -> list[Tensor | None]:
    """A dense gradient of its variable's shape, or `None`, for each variable.

    Args:
        caller: the method, for the message.
        grads: tensors, arrays, `IndexedSlices` (equal indices are summed), or `None`.

    Raises:
        ConfigError: not one for each variable, or all `None`; what is no real number, or of another shape. A shape that
            is known only when a compiled function runs is checked then, by the backend.

    >>> aligned_gradients("apply", [keras.ops.ones((2, 3))], [keras.Variable(keras.ops.ones((3, 2)), name="kernel")])
    Traceback (most recent call last):
        ...
    capibara_keras.errors.ConfigError: apply: the gradient of kernel has shape (2, 3), the variable (3, 2). Gradients \
come in the order of their variables
    """
    if isinstance(grads, Mapping):
        raise errors.ConfigError(
            "apply: expected a list of gradients, received a dictionary; `step` takes dictionaries"
        )
    grads = list(grads)
    if len(grads) != len(variables):
        raise errors.ConfigError(f"{caller}: {len(grads)} gradients for {len(variables)} variables")
    if all(g is None for g in grads):
        raise errors.ConfigError(f"{caller}: No gradients provided for any variable; every gradient is None")
    return [None if g is None else _aligned(caller, g, v) for g, v in zip(grads, variables, strict=True)]


def _aligned(caller: str, gradient: Any, variable: Variable) -> Tensor:
    subject = f"{caller}: the gradient of {path_of(variable)}"
    try:
        tensor = backend.dense(gradient, variable)
        dtype, shape = keras.backend.standardize_dtype(tensor.dtype), tuple(tensor.shape)
    except (TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise errors.ConfigError(f"{subject} is a {type(gradient).__name__}, and no tensor: {reason}") from error
    if dtype == "string" or dtype.startswith("complex"):
        raise errors.ConfigError(f"{subject} is of dtype {dtype}; expected real numbers")
    if shape != tuple(variable.shape):
        raise errors.ConfigError(
            f"{subject} has shape {shape}, the variable {tuple(variable.shape)}. Gradients come in the order of their "
            "variables"
        )
    return tensor

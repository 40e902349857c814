"""Which axes one output unit of a weight spans, for unit-wise clipping."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from capibara_keras.types import Variable
from capibara_keras.warning import warn

__all__ = ["unit_axes"]

_KERNELS = {"dense", "conv1d", "conv2d", "conv3d", "separableconv1d", "separableconv2d"}
_KERNELS |= {"lstmcell", "grucell", "simplernncell"}
_DEPTHWISE = {"depthwiseconv1d", "depthwiseconv2d"}
_TRANSPOSED = {"conv1dtranspose", "conv2dtranspose", "conv3dtranspose"}


def unit_axes(
    variables: Sequence[Variable], paths: Sequence[str], model: Any = None, *, include_output: bool = False
) -> list[tuple[int, ...] | None]:
    """For each variable the axes over which a unit's norm is taken; `None` for those that are not clipped.

    The unit is the output: the last axis of Dense and convolution kernels, (channel, multiplier) of depthwise ones,
    the row of an embedding, (head, key) of an attention projection. A vector is one unit, and so is a bias.

    Args:
        model: tells the layer of each variable; without it, the variable's path does.
        include_output: else the output layer, the last with a matrix, is not clipped.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> unit_axes(model.variables, [v.path for v in model.variables], model)
    [(0,), (0,), None, None]
    """
    owners = _owners(model)
    axes: list[tuple[int, ...] | None] = []
    strange: list[str] = []
    for variable, path in zip(variables, paths, strict=True):
        rank = len(variable.shape)
        owner, name = owners.get(id(variable)), path.rsplit("/", 1)[-1]
        kinds = _kinds(owner, path)
        if rank <= 1 or name == "bias":
            axes.append(tuple(range(rank)))
        elif owner is not None and isinstance(owner, keras.layers.EinsumDense):
            axes.append(_einsum_axes(owner, rank))
        elif name == "depthwise_kernel" or kinds & _DEPTHWISE:
            axes.append(tuple(range(rank - 2)))
        elif name.endswith("embeddings") or "embedding" in kinds:
            axes.append((rank - 1,))
        elif kinds & _TRANSPOSED:
            axes.append((*range(rank - 2), rank - 1))
        elif owner is None and rank == 3 and kinds & {"query", "key", "value"}:
            axes.append((0,))
        else:
            axes.append(tuple(range(rank - 1)))
            if owner is not None and not kinds & _KERNELS:
                strange.append(f"{path} ({type(owner).__name__})")
    if strange:
        warn(f"unit-wise clipping takes the last axis as the units of {', '.join(strange)}")
    return axes if include_output else _without_output(axes, variables, paths)


def _without_output(
    axes: list[tuple[int, ...] | None], variables: Sequence[Variable], paths: Sequence[str]
) -> list[tuple[int, ...] | None]:
    matrices = [path for path, v in zip(paths, variables, strict=True) if len(v.shape) > 1]
    if not matrices:
        return axes
    layer = matrices[-1].rsplit("/", 1)[0]
    return [None if path.rsplit("/", 1)[0] == layer else a for path, a in zip(paths, axes, strict=True)]


def _owners(model: Any) -> Mapping[int, Any]:
    """Variable id -> innermost layer that owns it."""
    if model is None:
        return {}
    return {id(v): layer for layer in model._flatten_layers() for v in getattr(layer, "_trainable_variables", [])}


def _kinds(owner: Any, path: str) -> set[str]:
    """Names of the layer's class and its bases in lower case; without a layer, what its name in the path says."""
    if owner is not None:
        return {kind.__name__.lower() for kind in type(owner).__mro__}
    return {re.sub(r"_\d+$", "", part).replace("_", "").lower() for part in path.split("/")[-2:-1]}


def _einsum_axes(layer: Any, rank: int) -> tuple[int, ...]:
    """The kernel's axes that the equation sums over."""
    inputs, output = layer.equation.replace("...", "").split("->")
    kernel = inputs.split(",")[1]
    return tuple(i for i in range(rank) if kernel[i] not in output)

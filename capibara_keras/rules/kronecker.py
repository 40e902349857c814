"""Second moments of a matrix by its rows and columns, and their eigenbases: what SOAP is made of.

A variable of more than one axis is taken as a matrix (`matrix_shape`). Each of its sides that is neither 1 nor too
long has a factor (L = mean of g g^T, R = mean of g^T g) and a basis of its eigenvectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from capibara_keras.rules.base import Shape, Slot
from capibara_keras.rules.muon import matrix_shape
from capibara_keras.types import Scalars, Tensor

__all__ = ["averaged", "declared", "eigenbases", "refreshed", "rotated", "rotated_back", "sides"]

SIDES = ("left", "right")
"""Names of the axes of a matrix."""


def sides(shape: Shape, longest: int) -> tuple[int, ...]:
    """The axes of the matrix that have a factor.

    >>> sides((3, 3, 64, 128), longest=1000), sides((50_000, 64), longest=1000), sides((64,), longest=1000)
    ((0, 1), (1,), ())
    """
    if len(shape) < 2:
        return ()
    return tuple(axis for axis, n in enumerate(matrix_shape(shape)) if 1 < n <= longest)


def declared(shape: Shape, longest: int) -> tuple[Slot, ...]:
    """Factors of all sides, then their bases: the identity until the first update."""
    squares = {SIDES[axis]: (matrix_shape(shape)[axis],) * 2 for axis in sides(shape, longest)}
    factors = [Slot(name, square) for name, square in squares.items()]
    return *factors, *(Slot(f"{name}_basis", square, None, "identity") for name, square in squares.items())


def averaged(factors: Sequence[Tensor], g: Tensor, axes: Sequence[int], s: Scalars) -> list[Tensor]:
    """The factors with the gradient matrix `g` in their means, by the decay rate `s.keep`."""
    squares = (ops.matmul(g, ops.transpose(g)) if axis == 0 else ops.matmul(ops.transpose(g), g) for axis in axes)
    return [s.keep * f + s.one_minus_keep * square for f, square in zip(factors, squares, strict=True)]


def rotated(x: Tensor, bases: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    """Q_L^T x Q_R: a matrix in the coordinates of the bases."""
    for basis, axis in zip(bases, axes, strict=True):
        x = ops.matmul(ops.transpose(basis), x) if axis == 0 else ops.matmul(x, basis)
    return x


def rotated_back(x: Tensor, bases: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
    """Q_L x Q_R^T: the inverse of `rotated`."""
    return rotated(x, [ops.transpose(basis) for basis in bases], axes)


def eigenbases(factors: Sequence[Tensor]) -> list[Tensor]:
    """Eigenvectors of the factors, those of the largest eigenvalues first."""
    return [ops.flip(ops.eigh(_scaled(factor))[1], axis=1) for factor in factors]


def refreshed(
    factors: Sequence[Tensor], bases: Sequence[Tensor], v: Tensor, axes: Sequence[int]
) -> tuple[list[Tensor], Tensor]:
    """Bases after a step of orthogonal iteration, and `v`, which is in their coordinates (Vyas et al. 2024,
    Algorithm 4). As in the authors' code, both are put in the order of the eigenvalues first."""
    new = []
    for factor, basis, axis in zip(factors, bases, axes, strict=True):
        image = ops.matmul(_scaled(factor), basis)
        order = ops.argsort(-ops.sum(basis * image, axis=0))
        v = ops.take(v, order, axis=axis)
        new.append(ops.qr(ops.take(image, order, axis=1))[0])
    return new, v


def _scaled(factor: Tensor) -> Tensor:
    """The factor with entries of at most 1: squares of small gradients would underflow in the decompositions."""
    largest = ops.max(ops.abs(factor))
    return factor / ops.where(largest > 0, largest, ops.ones_like(largest))

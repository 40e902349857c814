"""Adam for embeddings of which few rows are looked up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.adam import Adam
from capibara_keras.types import Scalars, Tensor

__all__ = ["LazyAdam"]


@dataclass(frozen=True)
class LazyAdam(Adam):
    """Adam that leaves a row as it is, weights and moments, where its gradient is 0 (Kingma & Ba 2015, Algorithm 1,
    row by row; as TensorFlow Addons' LazyAdam).

    A row is an index of the first axis; of a vector, an entry. Adam moves rows that were not looked up along their
    old momentum, and decays them. Bias correction counts the updates, not those of a row.

    >>> [slot.name for slot in LazyAdam().slots_for((2, 3))]
    ['m', 'v']
    """

    family: ClassVar[str] = "lazyadam"
    paper: ClassVar[str] = "Kingma & Ba 2015, Algorithm 1, by rows"
    use: ClassVar[str] = "Large embeddings, as the algorithm of their group."

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        delta, new = super().update(g, p, slots, s)
        touched = ops.any(g != 0, axis=tuple(range(1, len(g.shape))), keepdims=True) if len(g.shape) > 1 else g != 0
        kept = tuple(ops.where(touched, after, before) for after, before in zip(new, slots, strict=True))
        return ops.where(touched, delta, ops.zeros_like(delta)), kept

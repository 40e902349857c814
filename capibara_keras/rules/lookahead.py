"""Lookahead."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from capibara_keras.rules.base import Shape, Slot
from capibara_keras.rules.wrapper import Wrapper
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Lookahead"]


@dataclass(frozen=True)
class Lookahead(Wrapper):
    """Slow weights that go part of the way that fast ones explored (Zhang et al. 2019, Algorithm 1).

        every `steps` updates:  slow ← slow + alpha (w - slow),  w ← slow

    Args:
        steps: updates of the fast weights, k in the paper.
        alpha: the part of the way, in (0, 1].
    """

    steps: int = 5
    alpha: float = 0.5

    @property
    def hyperparameters(self) -> dict[str, float]:
        return self.rule.hyperparameters | {"lookahead_alpha": self.alpha}

    @property
    def neutral(self) -> dict[str, float]:
        return super().neutral | {"first": 0, "syncs": 0, "lookahead_alpha": 0}

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return *self.rule.slots_for(shape, dtype), Slot("slow_weights", moment=False)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        syncs = ops.cast(t % self.steps == 0, t.dtype)
        return self.rule.prepare(s, t).replace(first=ops.cast(t == 1, t.dtype), syncs=syncs)

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        *inner, slow = slots
        slow = ops.where(s.first > 0, p, slow)  # the weights that training began with
        delta, new = self.rule.update(g, p, tuple(inner), s)
        moved = slow + s.lookahead_alpha * (p + delta - slow)
        syncs = s.syncs > 0
        return ops.where(syncs, moved - p, delta), (*new, ops.where(syncs, moved, slow))

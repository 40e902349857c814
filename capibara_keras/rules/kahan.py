"""Compensated summation of weights in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from capibara_keras.rules.base import Shape, Slot
from capibara_keras.rules.bits import rounded
from capibara_keras.rules.wrapper import Wrapper
from capibara_keras.types import Scalars, Tensor

__all__ = ["Kahan"]


@dataclass(frozen=True)
class Kahan(Wrapper):
    """bfloat16 weights that remember what rounding took off (Kahan 1965; Zamirai et al. 2021, Algorithm 1).

        exact = w + c + step(w + c),  w ← bfloat16(exact),  c ← bfloat16(exact - w)

    Without, a step below half of the last place of w is lost: 1.0 stays 1.0 under steps of 0.001. Variables of
    other types are left alone. A constraint acts on w; c does not see it.
    """

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        slots = self.rule.slots_for(shape, dtype)
        return (*slots, Slot("compensation", None, "bfloat16")) if dtype == "bfloat16" else slots

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        if len(slots) == len(self.rule.slots_for(tuple(p.shape))):
            return self.rule.update(g, p, slots, s)
        *inner, c = slots
        whole = p + ops.cast(c, p.dtype)
        delta, new = self.rule.update(g, whole, tuple(inner), s)
        exact = whole + delta
        stored = rounded(exact)
        goes = ops.logical_or(s.rate > 0, delta != 0)
        kept = ops.where(goes, ops.cast(exact - stored, c.dtype), c)
        return ops.where(goes, stored - p, ops.zeros_like(p)), (*new, kept)

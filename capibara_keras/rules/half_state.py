"""State in bfloat16."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from keras import ops

from capibara_keras.rules.base import Shape, Slot
from capibara_keras.rules.bits import noise, stochastically_rounded
from capibara_keras.rules.wrapper import Wrapper
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["HalfState"]


@dataclass(frozen=True)
class HalfState(Wrapper):
    """Moments in bfloat16, half of float32's bytes, rounded stochastically (Gupta et al. 2015, Section 3.2).

    Rounded to the nearest, a moment with beta_2 = 0.999 would stand still: its step is below half of bfloat16's
    last place. The update itself is float32.
    """

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        slots = self.rule.slots_for(shape, dtype)
        return tuple(dataclasses.replace(s, dtype="bfloat16") if _is_moment(s) else s for s in slots)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return self.rule.prepare(s, t).replace(time=t)

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        declared = self.rule.slots_for(tuple(p.shape))
        full = [ops.cast(x, p.dtype) if _is_moment(slot) else x for slot, x in zip(declared, slots, strict=True)]
        delta, new = self.rule.update(g, p, tuple(full), s)
        stored = [
            _stored(x, s.time, stream) if _is_moment(slot) else x
            for stream, (slot, x) in enumerate(zip(declared, new, strict=True))
        ]
        return delta, tuple(stored)


def _is_moment(slot: Slot) -> bool:
    return slot.moment and slot.shape is None and slot.dtype is None


def _stored(x: Tensor, time: Scalar, stream: int) -> Tensor:
    random = noise(tuple(x.shape), time, stream)
    return ops.cast(stochastically_rounded(ops.cast(x, "float32"), random), "bfloat16")

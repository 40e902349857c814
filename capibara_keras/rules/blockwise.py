"""State in 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.adam import Adam
from capibara_keras.rules.base import Shape, Slot
from capibara_keras.rules.lion import Lion
from capibara_keras.rules.wrapper import Wrapper
from capibara_keras.types import Scalars, Tensor

__all__ = ["Blockwise", "decoded", "encoded"]

BLOCK = 256
"""Entries that share a scale."""

SMALLEST = 4096
"""Variables with fewer entries keep float32 state, as in the paper's code."""

NONNEGATIVE = ("v", "v_max")
"""Slots that hold squares."""


@dataclass(frozen=True)
class Blockwise(Wrapper):
    """Moments in 8 bits with a float32 scale for each 256 entries (Dettmers et al. 2022, Section 2).

        scale = max |x| over the block
        code = round(127 sign(x) (|x| / scale)^(1/4)),  255 levels for squares

    The paper looks codes up in a table whose steps grow with the magnitude; a fourth root spaces them likewise
    (relative steps of 3 % near the scale, 30 % at 1e-4 of it) and is arithmetic, which XLA vectorises. The code of
    a square is 0 only for 0: a divisor that rounds to 0 would let a step explode (Li, Chen & Zhu 2023, Section 4.1).
    The update itself is float32.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.rule, (Adam, Lion)):
            raise errors.ConfigError(
                f"state_precision: '8bit' is for adam, adamw and lion, received it with {self.rule.family!r}; "
                "'bfloat16' is for all algorithms"
            )

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        slots, size = self.rule.slots_for(shape, dtype), math.prod(shape)
        if size < SMALLEST:
            return slots
        codes = [Slot(s.name, None, "uint8", 0.0 if s.name in NONNEGATIVE else 128.0) for s in slots]
        scales = [Slot(f"{s.name}_scale", (-(-size // BLOCK),), "float32") for s in slots]
        return *codes, *scales

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        declared, shape = self.rule.slots_for(tuple(p.shape)), tuple(p.shape)
        if math.prod(shape) < SMALLEST:
            return self.rule.update(g, p, slots, s)
        codes, scales, signed = (
            slots[: len(declared)],
            slots[len(declared) :],
            [s.name not in NONNEGATIVE for s in declared],
        )
        full = [ops.cast(decoded(*x), p.dtype) for x in zip(codes, scales, signed, strict=True)]
        delta, new = self.rule.update(g, p, tuple(full), s)
        stored = [encoded(ops.cast(x, "float32"), sign) for x, sign in zip(new, signed, strict=True)]
        goes = s.fresh > 0
        new_codes = [ops.where(goes, code, old) for (code, _), old in zip(stored, codes, strict=True)]
        return delta, (*new_codes, *(ops.where(goes, x, old) for (_, x), old in zip(stored, scales, strict=True)))


def encoded(x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """Codes of the shape of `x`, and a scale for each block of its entries in order.

    >>> codes, scales = encoded(ops.convert_to_tensor([0.0, 1.0, -2.0]), signed=True)
    >>> ops.convert_to_numpy(codes).tolist(), ops.convert_to_numpy(scales).tolist()
    ([128, 235, 1], [2.0])
    """
    shape, size = tuple(x.shape), math.prod(x.shape)
    blocks = ops.reshape(ops.pad(ops.reshape(x, (-1,)), [[0, -size % BLOCK]]), (-1, BLOCK))
    magnitudes = ops.abs(blocks)
    lanes = ops.reshape(magnitudes, (-1, BLOCK // 16, 16))  # XLA on a CPU has no fast maximum along the last axis
    scales = ops.max(ops.max(lanes, axis=1), axis=1)
    divisor = ops.where(scales > 0, scales, ops.ones_like(scales))
    roots = ops.sqrt(ops.sqrt(magnitudes / divisor[:, None]))
    if signed:
        codes = ops.round(127 * ops.sign(blocks) * roots) + 128
    else:
        codes = ops.where(blocks > 0, ops.maximum(ops.round(255 * roots), 1.0), 0.0)
    return ops.reshape(ops.reshape(ops.cast(codes, "uint8"), (-1,))[:size], shape), scales


def decoded(codes: Tensor, scales: Tensor, signed: bool) -> Tensor:
    """What `encoded` stored, as float32.

    >>> codes, scales = encoded(ops.convert_to_tensor([0.0, 1.0, -2.0]), signed=True)
    >>> [round(float(x), 2) for x in ops.convert_to_numpy(decoded(codes, scales, signed=True))]
    [0.0, 1.01, -2.0]
    """
    shape, size = tuple(codes.shape), math.prod(codes.shape)
    numbers = ops.cast(codes, "float32")
    roots = (numbers - 128) / 127 if signed else numbers / 255
    fourth = ops.square(ops.square(roots))
    values = ops.sign(roots) * fourth if signed else fourth
    blocks = ops.reshape(ops.pad(ops.reshape(values, (-1,)), [[0, -size % BLOCK]]), (-1, BLOCK))
    return ops.reshape(ops.reshape(blocks * scales[:, None], (-1,))[:size], shape)

"""Rounding that a compiler cannot take for a detour: on the bits of float32 numbers.

XLA may keep more digits than were asked for, so that float32 -> bfloat16 -> float32 does nothing.
"""

from __future__ import annotations

from keras import ops

from capibara_keras.types import Scalar, Tensor

__all__ = ["noise", "rounded", "stochastically_rounded"]

HIGH = 0xFFFF0000
"""The bits of a float32 number that bfloat16 has."""


def rounded(x: Tensor) -> Tensor:
    """float32 numbers rounded to the nearest of bfloat16, half to even; still float32.

    >>> float(rounded(ops.convert_to_tensor(1.0 + 2.0**-8 + 2.0**-9, "float32"))) == 1 + 2.0**-7
    True
    """
    bits = ops.view(x, "uint32")
    last = ops.bitwise_and(ops.right_shift(bits, _word(16)), _word(1))
    return ops.view(ops.bitwise_and(bits + last + _word(0x7FFF), _word(HIGH)), "float32")


def stochastically_rounded(x: Tensor, random: Tensor) -> Tensor:
    """float32 numbers rounded to one of the neighbours in bfloat16, right on average; still float32.

    Args:
        random: of `noise`, of the same shape. A number that bfloat16 has stays what it is.
    """
    bits = ops.view(x, "uint32") + ops.bitwise_and(random, _word(0xFFFF))
    return ops.view(ops.bitwise_and(bits, _word(HIGH)), "float32")


def noise(shape: tuple[int, ...], time: Scalar, stream: int) -> Tensor:
    """Random 32-bit numbers, the same for the same time and stream: a resumed run, and all replicas, see the same.

    The entries' numbers are hashed (the mixing of Wellons 2018, "Prospecting for hash functions", lowbias32).
    """
    size = 1
    for n in shape:
        size *= n
    x = ops.cast(ops.arange(size, dtype="int32"), "uint32")
    seed = ops.cast(ops.cast(time, "int32"), "uint32") * _word(0x9E3779B9) + _word(stream * 0x85EBCA6B % 2**32)
    x = ops.bitwise_xor(_mixed(x + seed), seed)
    return ops.reshape(_mixed(x), shape)


def _mixed(x: Tensor) -> Tensor:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ops.bitwise_xor(x, ops.right_shift(x, _word(shift))) * _word(factor)
    return ops.bitwise_xor(x, ops.right_shift(x, _word(16)))


def _word(value: int) -> Tensor:
    return ops.convert_to_tensor(value, "uint32")

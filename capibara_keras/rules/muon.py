"""Muon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras import errors
from capibara_keras.rules.adamw import AdamW
from capibara_keras.rules.base import Rule, Shape, Slot, UpdateRule, bias_correction, decoupled, norm
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Muon", "matrix_shape", "orthogonalized"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that brings singular values near 1."""

HEADS = r"re:(^|/)(\w*embed\w*|\w*head|logits|classifier|predictions|output)(_\d+)?(/|$)"


@dataclass(frozen=True)
class Muon(Rule):
    """Steps along an orthogonalised momentum, for matrices and kernels (Jordan et al. 2024).

        b_t = momentum b_{t-1} + (1 - momentum) g_t
        u_t = scale orthogonalised(b_t),  or of momentum b_t + (1 - momentum) g_t with nesterov

    `scale` is 0.2 sqrt(max(in, out)) (Liu et al. 2025, Equation 4), which makes the step as long as AdamW's, so
    that one rate and one decay serve both; with `adjust_rate="original"` it is sqrt(max(1, out / in)).

    A kernel of more than two axes is taken as the matrix nearest to a square that its axes in order allow:
    (height width in, out) of a convolution, (in, heads size) of an attention. Vectors, and what `adam_pattern`
    matches (embeddings and heads, by their usual names), get AdamW.

    Args:
        momentum: in [0, 1).
        nesterov: look ahead.
        newton_schulz_steps: iterations of the orthogonalisation, ≥ 1.
        adjust_rate: "match_rms_adamw" or "original".
        split: orthogonalise so many equal parts of the last axis each by itself: 3 for a fused query, key, value.
        adam_pattern: of variable paths, as in `Group`; "" for none.
        beta_1, beta_2, epsilon: of AdamW.

    >>> [slot.name for slot in Muon().slots_for((2, 3))], [slot.name for slot in Muon().slots_for((3,))]
    (['momentum'], ['m', 'v'])
    """

    momentum: float = 0.95
    nesterov: bool = True
    newton_schulz_steps: int = 5
    adjust_rate: str = "match_rms_adamw"
    split: int = 1
    adam_pattern: str = HEADS
    beta_1: float = 0.9
    beta_2: float = 0.95
    epsilon: float = 1e-8

    family: ClassVar[str] = "muon"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Jordan et al. 2024; Liu et al. 2025, Equation 4"
    use: ClassVar[str] = "Transformers and convolutional networks; half of Adam's memory. AdamW's rate and decay."
    betas: ClassVar[tuple[str, ...]] = ("momentum", "beta_1", "beta_2")
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.boolean("nesterov", self.nesterov)
        errors.choice("adjust_rate", self.adjust_rate, ("match_rms_adamw", "original"))
        if not isinstance(self.adam_pattern, str):
            raise errors.ConfigError(f"adam_pattern: expected a string, received {self.adam_pattern!r}")
        for name in ("newton_schulz_steps", "split"):
            object.__setattr__(self, name, errors.integer(name, getattr(self, name), 1))

    @property
    def companion(self) -> tuple[str, UpdateRule] | None:
        return (self.adam_pattern, AdamW(self.beta_1, self.beta_2, self.epsilon)) if self.adam_pattern else None

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        if len(shape) > 1 and shape[-1] % self.split:
            raise errors.ConfigError(f"split: {self.split} does not divide the last axis of a kernel of shape {shape}")
        return (Slot("momentum"),) if len(shape) > 1 else (Slot("m"), Slot("v"))

    def name_for(self, shape: Shape) -> str:
        return "Muon" if len(shape) > 1 else "AdamW"

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        s = super().prepare(s, t)
        return s.replace(
            look_ahead=1 - s.one_minus_momentum,
            correction_1=bias_correction(s.one_minus_beta_1, t),
            correction_2=bias_correction(s.one_minus_beta_2, t),
        )

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        if len(g.shape) < 2:
            m, v = slots
            m = s.beta_1 * m + s.one_minus_beta_1 * g
            v = s.beta_2 * v + s.one_minus_beta_2 * g * g
            u = m * s.correction_1 / (ops.sqrt(v * s.correction_2) + s.epsilon)
            return decoupled(u, p, s), (m, v)
        b = s.momentum * slots[0] + s.one_minus_momentum * g
        ahead = s.look_ahead * b + (1 - s.look_ahead) * g if self.nesterov else b
        parts = [self._direction(x) for x in ops.split(ahead, self.split, axis=-1)]
        return decoupled(ops.concatenate(parts, axis=-1), p, s), (b,)

    def _direction(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        fan_in, fan_out = matrix_shape(shape)
        if self.adjust_rate == "original":
            scale = math.sqrt(max(1.0, fan_out / fan_in))
        else:
            scale = 0.2 * math.sqrt(max(fan_in, fan_out))
        return scale * ops.reshape(orthogonalized(ops.reshape(x, (fan_in, fan_out)), self.newton_schulz_steps), shape)


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """The most nearly square cut of the axes into rows and columns.

    >>> matrix_shape((3, 3, 64, 128)), matrix_shape((512, 8, 64)), matrix_shape((8, 64, 512))
    ((576, 128), (512, 512), (512, 512))
    """
    cuts = [(math.prod(shape[:i]), math.prod(shape[i:])) for i in range(1, len(shape))]
    return min(reversed(cuts), key=lambda cut: max(cut) / max(min(cut), 1))


def orthogonalized(x: Tensor, steps: int) -> Tensor:
    """Near U V^T of the singular value decomposition, by a Newton-Schulz iteration (Jordan et al. 2024)."""
    wide = x.shape[0] <= x.shape[1]
    a, b, c = COEFFICIENTS
    x = x if wide else ops.transpose(x)
    x = x / ops.maximum(norm(x), 1e-7)
    for _ in range(steps):
        gram = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return x if wide else ops.transpose(x)

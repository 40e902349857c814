"""Lion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from capibara_keras.rules.base import Rule, decoupled
from capibara_keras.types import Scalars, Tensor

__all__ = ["Lion"]


@dataclass(frozen=True)
class Lion(Rule):
    """Sign of an interpolated momentum (Chen et al. 2023, Algorithm 2).

        u_t = sign(beta_1 m_{t-1} + (1 - beta_1) g_t)
        m_t =      beta_2 m_{t-1} + (1 - beta_2) g_t

    Args:
        beta_1, beta_2: shares of the momentum in the step and in the buffer, in [0, 1).

    >>> [slot.name for slot in Lion().slots_for((2, 3))]
    ['m']
    """

    beta_1: float = 0.9
    beta_2: float = 0.99

    family: ClassVar[str] = "lion"
    default_learning_rate: ClassVar[float] = 1e-4
    paper: ClassVar[str] = "Chen et al. 2023, Algorithm 2"
    use: ClassVar[str] = "Large batches; half of Adam's memory. A third of AdamW's rate, three times its decay."
    state: ClassVar[tuple[str, ...]] = ("m",)
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        (m,) = slots
        u = ops.sign(s.beta_1 * m + s.one_minus_beta_1 * g)
        return decoupled(u, p, s), (s.beta_2 * m + s.one_minus_beta_2 * g,)

"""Cautious steps."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from capibara_keras.rules.wrapper import Wrapper
from capibara_keras.types import Scalars, Tensor

__all__ = ["Cautious"]


@dataclass(frozen=True)
class Cautious(Wrapper):
    """Only those entries of a step that descend along the present gradient (Liang et al. 2024, Algorithm 2).

        phi = [step g < 0],  step ← phi step n / (|phi|_0 + 1),  n entries

    Decay stands beside the step, also for rules that have it inside.
    """

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        step, new = self.rule.update(g, p, slots, s.replace(decay=None))
        descends = ops.cast(step * g < 0, step.dtype)
        size = 1
        for n in step.shape:
            size *= n
        step = step * descends * (size / (ops.sum(descends) + 1))
        return step if s.decay is None else step - s.decay * p, new

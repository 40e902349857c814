"""A rule around a rule: what all modifiers have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from capibara_keras.rules.base import Shape, Slot, UpdateRule
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["Wrapper"]


@dataclass(frozen=True)
class Wrapper:
    """Passes everything on to `rule`; a modifier changes one part of that.

    >>> from capibara_keras.rules import Lion
    >>> Wrapper(Lion()).family
    'lion'
    """

    rule: UpdateRule

    @property
    def family(self) -> str:
        return self.rule.family

    @property
    def default_learning_rate(self) -> float:
        return self.rule.default_learning_rate

    @property
    def paper(self) -> str:
        return self.rule.paper

    @property
    def use(self) -> str:
        return self.rule.use

    @property
    def gathered(self) -> tuple[str, ...]:
        return self.rule.gathered

    @property
    def two_points(self) -> bool:
        return self.rule.two_points

    @property
    def innermost(self) -> UpdateRule:
        return self.rule.innermost

    @property
    def companion(self) -> tuple[str, UpdateRule] | None:
        return self.rule.companion

    @property
    def hyperparameters(self) -> dict[str, float]:
        return self.rule.hyperparameters

    @property
    def neutral(self) -> dict[str, Any]:
        return dict(self.rule.neutral)

    def slots_for(self, shape: Shape, dtype: str = "float32") -> tuple[Slot, ...]:
        return self.rule.slots_for(shape, dtype)

    def prepare(self, s: Scalars, t: Scalar) -> Scalars:
        return self.rule.prepare(s, t)

    def update(self, g: Tensor, p: Tensor, slots: tuple[Tensor, ...], s: Scalars) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.rule.update(g, p, slots, s)

    def evaluation(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        return self.rule.evaluation(p, slots)

    def training(self, p: Tensor, slots: tuple[Tensor, ...]) -> Tensor:
        return self.rule.training(p, slots)

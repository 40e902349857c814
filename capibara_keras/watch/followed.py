"""What of an optimizer is followed, as it is configured now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capibara_keras.clip import ClipByGlobalNorm, ClipByNorm
from capibara_keras.config import OptimizerConfig
from capibara_keras.monitoring import Subject
from capibara_keras.plan import Plan

__all__ = ["Followed"]


@dataclass(frozen=True, eq=False)
class Followed:
    """The variables that are watched, and what is fixed about them.

    Args:
        plan, configuration: of the optimizer.
        kept: indices of the variables that a gradient moves; float8 scales are none.
        subject: of the monitor.
        decays: what weight decay takes off each kept variable per unit of the rate, or in the mode "corrected" of its
            square; nan for an l2 penalty, which moves with the gradient.
    """

    plan: Plan
    configuration: OptimizerConfig
    kept: list[int]
    subject: Subject
    decays: np.ndarray

    @classmethod
    def of(cls, optimizer: Any, baseline_loss: float, loss_scaled: bool) -> Followed:
        """A built optimizer, with what only the user knows of the training."""
        plan, config, variables = optimizer._plan(), optimizer.configuration, optimizer._trainable_variables
        kept = [i for i, variable in enumerate(plan.variables) if not variable.overwrite]
        subject = Subject(
            paths=tuple(optimizer._rows[i].path for i in kept),
            shapes=tuple(tuple(variables[i].shape) for i in kept),
            baseline_loss=baseline_loss,
            adaptive=config.rule.family != "sgd",
            epsilon=getattr(config.rule.innermost, "epsilon", math.nan),
            loss_scaled=loss_scaled,
            fixed_clip=isinstance(config.clip, (ClipByNorm, ClipByGlobalNorm)),
        )
        return cls(plan, config, kept, subject, _decays(plan, config, kept))

    def is_of(self, optimizer: Any) -> bool:
        """Whether the optimizer is still as it was."""
        return self.plan is optimizer._plan() and self.configuration is optimizer.configuration

    def decay_norm(self, learning_rate: float, parameter_norms: np.ndarray) -> float:
        """Norm of what weight decay takes off in an update."""
        decaying = self.decays != 0
        power = 2 if self.plan.weight_decay_mode == "corrected" else 1
        return learning_rate**power * float(np.linalg.norm(self.decays[decaying] * parameter_norms[decaying]))


def _decays(plan: Plan, config: OptimizerConfig, kept: Sequence[int]) -> np.ndarray:
    """See `Followed`."""
    of_group = [part.hyperparameters.get("weight_decay", 0.0) for part in config.parts]
    relative = 1 / plan.peak
    factors = {"decoupled": 1.0, "independent": relative, "corrected": relative, "l2": math.nan}
    variables = [plan.variables[i] for i in kept]
    scales = np.array([v.rate * of_group[v.group] if v.decays else 0.0 for v in variables])
    return np.where(scales > 0, factors[plan.weight_decay_mode] * scales, 0.0)

"""The table of health rules: one row per problem, causes before their symptoms."""

from __future__ import annotations

from capibara_keras.monitoring.rules import (
    generalisation,
    gradients,
    numerics,
    oscillation,
    progress,
    rising,
    updates,
)
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["DEFAULT_RULES", "Finding", "HealthRule"]

DEFAULT_RULES: tuple[HealthRule, ...] = (
    *numerics.RULES,
    *rising.RULES,
    *oscillation.RULES,
    *progress.RULES,
    *generalisation.RULES,
    *gradients.RULES,
    *updates.RULES,
)
"""What `HealthMonitor` looks for unless told otherwise."""

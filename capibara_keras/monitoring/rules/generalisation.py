"""A model that fits the training data, and no other."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.robust import median
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["RULES"]

LOST = 0.1
"""Share of what the validation loss gained over the baseline that is lost again before it is called overfitting."""


def overfitting(history: History, limit: float) -> Finding | None:
    """The loss on other data rises, while that on the training data falls. A rise that is large beside the best loss is
    not yet one that matters: a classifier that is nearly always right, and grows too sure, doubles a loss near 0. What
    counts is how much of what was gained over a model that knows nothing is lost again."""
    rows = history.validation.last()
    if len(rows) < 6:
        return None
    updates, losses, training = rows.T
    best, now = int(np.argmin(losses)), median(losses[-3:])
    start = history.first_loss if math.isnan(history.subject.baseline_loss) else history.subject.baseline_loss
    lost = now - losses[best] > LOST * max(start - losses[best], 0.0)
    risen = now > limit * losses[best] and lost
    fallen = training[-1] < 0.9 * training[best] and training[-1] < 0.5 * losses[-1]
    if best > len(rows) - 4 or not (risen and fallen):
        return None
    numbers = {"loss": now, "best": losses[best], "at": int(updates[best])}
    return Finding(now / losses[best], (), {"layer": "loss", **numbers})


RULES = (
    HealthRule(
        "overfitting",
        "warning",
        overfitting,
        limit=1.1,
        message="the validation loss is {loss:.3g}, {value:.1f} times (limit {limit:g}) its best, {best:.3g} at update "
        "{at}; the training loss fell since",
        suggestion="go back to the weights of update {at}, as keras.callbacks.EarlyStopping(patience=3, "
        "restore_best_weights=True) does, or train with weight_decay=0.1",
        needs="validation",
        hold=2,
    ),
)

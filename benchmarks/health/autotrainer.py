"""The rules of AUTOTRAINER (Zhang et al., ICSE 2021) with the parameters of its published implementation.

They look once per epoch, at the gradient of one batch and at accuracies. For a regression, which has no accuracy, the
tests of accuracy are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from benchmarks.health.recording import Epoch

__all__ = ["MEANING", "judge"]

VANISHED, VANISHED_NORM, EXPLODED, ZEROS = 1e-3, 1e-4, 70, 0.7
SATISFIED, SWING, SWING_SHARE, SLOW, HUGE_LOSS, JUDGED_FROM = 0.7, 0.03, 0.2, 0.01, 1e5, 0.3

MEANING = {
    "explode": (
        "nonfinite_loss",
        "nonfinite_gradient",
        "nonfinite_parameter",
        "gradient_explosion",
        "gradient_huge",
        "loss_divergence",
        "update_ratio_high",
        "warmup_missing",
        "bad_init",
    ),
    "vanish": ("gradient_vanishing",),
    "relu": ("dead_units",),
    "unstable": ("loss_oscillation", "loss_spike", "update_ratio_high", "loss_divergence", "warmup_missing"),
    "not_converge": (
        "no_learning",
        "slow_progress",
        "update_ratio_high",
        "clipping_saturated",
        "weight_decay_dominant",
        "adam_epsilon_dominant",
        "symmetric_units",
        "lr_zero",
        "fp16_underflow",
        "warmup_missing",
    ),
}
"""Its five problems, and ours that are the same or have them as a symptom: generously."""


def judge(epochs: Sequence[Epoch]) -> list[tuple[str, int]]:
    """(problem, update) of what it would have reported; it stops at the first."""
    total = len(epochs)
    vanished = exploded = dead = 0
    for n in range(1, total + 1):
        seen, now = epochs[:n], epochs[n - 1]
        late = n >= JUDGED_FROM * total
        bad_loss = not np.isfinite([now.loss, now.validation_loss]).all() or now.validation_loss >= HUGE_LOSS
        if bad_loss or not now.finite:
            return [("explode", now.update)]
        ratio = now.first_norm / max(now.last_norm, 1e-300)
        vanished += ratio < VANISHED and now.first_norm < VANISHED_NORM
        exploded += ratio > EXPLODED
        dead += now.zero_fraction >= ZEROS
        train, other = (np.array([getattr(e, name) for e in seen]) for name in ("accuracy", "validation_accuracy"))
        if not late or np.isnan(train).any():
            continue
        slow = largest_gain(train) < SLOW and largest_gain(other) < SLOW
        if max(train) < SATISFIED or max(other) < SATISFIED or slow:
            for problem, count in (("relu", dead), ("explode", exploded), ("vanish", vanished), ("not_converge", slow)):
                if count:
                    return [(problem, now.update)]
        elif swings(train):
            return [("unstable", now.update)]
    return []


def largest_gain(accuracies: np.ndarray) -> float:
    return float(np.max(np.diff(accuracies), initial=0.0))


def swings(accuracies: np.ndarray) -> bool:
    """Whether maxima and minima of the accuracy differ often enough."""
    high, low = [], []
    for i, (a, b) in enumerate(pairwise(accuracies[:-1]), start=1):
        following = accuracies[i + 1]
        if b - a >= 0 and b - following >= 0:
            high.append(b)
        if b - a <= 0 and b - following <= 0:
            low.append(b)
    count = sum(h - m >= SWING for h, m in zip(high, low, strict=False))
    return count >= SWING_SHARE * len(accuracies)

"""A loss that does not fall: too slowly, not yet, never, or no longer."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.indicators import typical_ratios
from capibara_keras.monitoring.robust import block_medians, median, theil_sen
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["RULES"]

LATE, LEARNED = 500, 200
"""Updates before a loss at the baseline is more than a late start, and losses whose mean is compared with it. Healthy
small trainings left the baseline as late as update 280."""

FALLING = 0.6
"""Share of batches whose loss is lower than an epoch ago from which on the loss falls, where their order repeats."""

EXPLAINED = (
    "slow_progress",
    "lr_zero",
    "no_gradient",
    "dead_units",
    "symmetric_units",
    "gradient_vanishing",
    "fp16_underflow",
    "adam_epsilon_dominant",
    "weight_decay_dominant",
    "clipping_saturated",
    "update_ratio_high",
    "bad_init",
)
"""Rules that say why nothing is learned."""


def slow(history: History, limit: float) -> Finding | None:
    """Hardly anything gained in 100 updates, and updates that are small beside the weights."""
    if len(history.losses) < 100 or len(history.layer_changes) < 5 or _trained(history):
        return None
    gain = (history.early_loss - median(history.losses.last(30))) / max(abs(history.early_loss), 1e-300)
    ratios = typical_ratios(history, 50)
    usual = median(ratios[~np.isnan(ratios)])
    if not (gain < limit and 0 < usual < 1e-4):
        return None
    return Finding(gain, (), {"layer": "loss", "ratio": usual, "rate": history.latest.learning_rate * 10})


def not_yet_learning(history: History, limit: float) -> Finding | None:
    """After 100 updates the loss is no better than that of a model which knows nothing. So is that of a healthy one
    that begins late: while the weights find the first feature that helps, nothing shows in the loss."""
    baseline = history.subject.baseline_loss
    if math.isnan(baseline) or not 100 <= history.losses.count < LATE or _trained(history):
        return None
    now, floor = median(history.losses.last(30)), limit * min(baseline, history.first_loss)
    if not (now > floor and median(history.epoch_losses(30)) > floor):
        return None
    return Finding(now / baseline, (), {"layer": "loss", "loss": now, "baseline": baseline, "late": LATE})


def not_learning(history: History, limit: float) -> Finding | None:
    """After 500 updates still not. The mean of many losses is compared, which a baseline is the expectation of: noise
    of batches hides a weak signal from anything shorter."""
    baseline = history.subject.baseline_loss
    if math.isnan(baseline) or history.losses.count < LATE or _trained(history):
        return None
    now = float(history.losses.last(LEARNED).mean())
    if not (now > limit * baseline and history.epoch_losses(LEARNED).mean() > limit * baseline):
        return None
    numbers = {"layer": "loss", "loss": now, "baseline": baseline, "late": LATE}
    return Finding(now / baseline, (), numbers | {"rate": history.latest.learning_rate})


def plateau(history: History, limit: float) -> Finding | None:
    """The loss has stopped falling."""
    losses = history.losses.last(150)
    if len(losses) < 150:
        return None
    blocks, drop = block_medians(losses, 15), history.first_loss - history.best_loss
    _, low, high = theil_sen(np.arange(15.0), blocks)
    gain = float(blocks[:3].mean() - blocks[-3:].mean())
    if not (low <= 0 <= high or (drop > 0 and gain < limit * drop)):
        return None
    if history.order.is_undecided() or _falls_in_each_place(history, losses, limit * drop):
        return None
    numbers = {"layer": "loss", "loss": float(blocks[-1]), "drop": drop, "rate": history.latest.learning_rate / 10}
    return Finding(gain / drop if drop > 0 else 0.0, (), numbers)


def _falls_in_each_place(history: History, losses: np.ndarray, least: float) -> bool:
    """Whether the same batches had higher losses an epoch ago, by so much that they lose `least` in this time."""
    then = history.order.same_losses_before(len(losses))
    if not len(then):
        return False
    fall = then - losses[-len(then) :]
    epochs = len(losses) / history.order.epoch_updates
    return bool(np.mean(fall > 0) > FALLING and median(fall) * epochs > least)


def _trained(history: History) -> bool:
    """Whether training began with a model that knew much already; or with a negative loss and no baseline, where a
    share of the loss says nothing."""
    return history.first_loss < 0.7 * float(np.nan_to_num(history.subject.baseline_loss, nan=0.0))


RULES = (
    HealthRule(
        "slow_progress",
        "warning",
        slow,
        limit=0.05,
        message="the loss fell by {value:.1%} in all (limit {limit:.0%}), and each update changes the median layer by "
        "{ratio:.1e} of its norm (limit 1e-4)",
        suggestion="train with 10 times the rate: learning_rate={rate:.1e}",
        needs="loss",
        hold=3,
        every=10,
        causes=(
            "lr_zero",
            "no_gradient",
            "gradient_vanishing",
            "adam_epsilon_dominant",
            "fp16_underflow",
            "clipping_saturated",
            "dead_units",
            "update_ratio_high",
        ),
    ),
    HealthRule(
        "late_start",
        "info",
        not_yet_learning,
        limit=0.97,
        message="the loss is {loss:.3g}, {value:.0%} (limit {limit:.0%}) of that of a model that knows nothing",
        suggestion="wait until update {late}, some tasks start late; warmup_steps=100 and global_clipnorm=1.0 help the "
        "start",
        needs="loss",
        hold=5,
        every=10,
        causes=EXPLAINED,
    ),
    HealthRule(
        "no_learning",
        "warning",
        not_learning,
        limit=0.99,
        message="after more than {late} updates the loss is {loss:.3g}, {value:.0%} (limit {limit:.0%}) of that of a "
        "model that knows nothing",
        suggestion="check that labels belong to their inputs, that layers are trainable and data shuffled; then let "
        "capibara_keras.range_test find learning_rate, which is {rate:.1e} now",
        needs="loss",
        hold=3,
        every=10,
        causes=EXPLAINED,
    ),
    HealthRule(
        "loss_plateau",
        "info",
        plateau,
        limit=0.005,
        message="the loss has stayed near {loss:.3g} for 150 updates, after a gain of {drop:.3g}: they brought "
        "{value:.1%} of it (limit {limit:.1%}, or the noise)",
        suggestion="if that is not good enough, go on with a tenth of the rate: learning_rate={rate:.1e}",
        needs="loss",
        hold=2,
        every=20,
        causes=("slow_progress", "late_start", "no_learning"),
    ),
)

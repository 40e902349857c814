"""Updates that are too large or too small beside the weights, and rates that cause it."""

from __future__ import annotations

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.metrics import typical_ratios
from capibara_keras.monitoring.rules.rule import Finding, HealthRule
from capibara_keras.monitoring.statistics import median

__all__ = ["RULES"]

SETTLED, UNSETTLED = 15, 3
"""Until so many updates the ratio may be so many times the limit: the first ones of Adam are large by design."""

GROWN = 30
"""Updates in which the ratio of a layer that began at 0 says nothing: after t steps of one size it is 1/t or more."""


def too_large(history: History, limit: float) -> Finding | None:
    """The median layer changes by more than `limit` of its norm per update."""
    settled = history.updates > SETTLED and len(history.layer_changes) >= 3
    ratios = typical_ratios(history, 10 if settled else 1)
    if history.updates < GROWN:
        ratios = np.where(history.first_parameters > 0, ratios, np.nan)
    usual = median(ratios[~np.isnan(ratios)])
    if not usual > (limit if settled else UNSETTLED * limit):
        return None
    worst = [i for i in np.argsort(-np.nan_to_num(ratios), kind="stable") if ratios[i] > limit]
    return Finding(usual, history.subject.names(worst), {"rate": history.latest.learning_rate / 10})


def too_small(history: History, limit: float) -> Finding | None:
    """The median layer changes by less than `limit` of its norm per update, though the rate is not 0."""
    if len(history.layer_changes) < 20 or not history.rates.last().all():
        return None
    ratios = typical_ratios(history, 50)
    usual = median(ratios[~np.isnan(ratios)])
    if not usual < limit:
        return None
    return Finding(usual, (), {"rate": history.latest.learning_rate * 10})


def decay_dominates(history: History, limit: float) -> Finding | None:
    """What weight decay takes off is most of the update, and the weights shrink."""
    if len(history.measured) < 3:
        return None
    _, parameters, change, decay = history.measured.last(20).T
    share = median(decay / np.maximum(change, 1e-300))
    if not (share > limit and parameters[-1] < 0.8 * history.first_parameter_norm):
        return None
    return Finding(share, (), {"now": parameters[-1], "start": history.first_parameter_norm})


def rate_zero(history: History, limit: float) -> Finding | None:
    """The rate has been nothing for 20 updates."""
    if history.latest.learning_rate > limit * history.peak_rate:
        return None
    rates = history.rates.last(20)
    if len(rates) < 20 or not rates.max() <= limit * history.peak_rate:
        return None
    return Finding(float(rates[-1]), (), {"peak": history.peak_rate})


def rate_jump(history: History, limit: float) -> Finding | None:
    """The rate changed manifold in one update, after the first 20."""
    rates = history.rates.last(2)
    if history.rates.count <= 21 or not rates.min() > 0:
        return None
    ratio = float(rates[1] / rates[0])
    if max(ratio, 1 / ratio) <= limit:
        return None
    return Finding(max(ratio, 1 / ratio), (), {"before": rates[0], "after": rates[1]})


def no_warmup(history: History, limit: float) -> Finding | None:
    """A transformer with Adam starts at its full rate, and takes large steps or goes up within its first 30 updates."""
    subject, x = history.subject, history.latest
    if not (subject.adaptive and subject.attention) or history.updates > 30 or len(history.rates) < 10:
        return None
    if not history.rates.last()[0] >= 0.5 * history.peak_rate > 0:
        return None
    early = history.losses.last(5).mean() if len(history.losses) >= 5 else np.nan
    rising = early > 1.5 * history.first_loss > 0
    ratios = typical_ratios(history, 5) if history.updates >= 10 and len(history.layer_changes) else np.full(1, np.nan)
    usual = median(ratios[~np.isnan(ratios)])
    if not (rising or usual > limit):
        return None
    return Finding(usual, (), {"rate": x.learning_rate, "loss": early, "start": history.first_loss})


RULES = (
    HealthRule(
        "update_ratio_high",
        "warning",
        too_large,
        limit=0.1,
        message="each update changes the median layer by {value:.2g} times its norm{layers}",
        suggestion="lower the learning rate 10 times, to {rate:.1e}",
        needs="measurement",
        hold=3,
        causes=("warmup_missing", "weight_decay_dominant"),
        escalates=True,
    ),
    HealthRule(
        "update_ratio_low",
        "info",
        too_small,
        limit=1e-5,
        message="each update changes the median layer by {value:.1e} of its norm",
        suggestion="raise the learning rate 10 times, to {rate:.1e}, or lower epsilon to 1e-8",
        needs="measurement",
        hold=5,
        causes=("lr_zero", "adam_epsilon_dominant", "fp16_underflow"),
    ),
    HealthRule(
        "weight_decay_dominant",
        "warning",
        decay_dominates,
        limit=0.5,
        message="weight decay makes up {value:.0%} of the update; the weights' norm fell from {start:.3g} to {now:.3g}",
        suggestion="lower weight_decay 10 times",
        needs="measurement",
        hold=3,
    ),
    HealthRule(
        "warmup_missing",
        "warning",
        no_warmup,
        limit=0.02,
        message="a transformer started at the full rate {rate:.1e}: the median layer changes by {value:.1%} per update",
        suggestion="warm the rate up over 2 / (1 - beta_2) updates: warmup_steps=2000 for beta_2=0.999",
        causes=("weight_decay_dominant",),
    ),
    HealthRule(
        "lr_zero",
        "warning",
        rate_zero,
        limit=1e-6,
        message="the learning rate has been {value:.1e} for 20 updates; it was {peak:.1e} at most",
        suggestion="set min_lr_ratio=0.1, give the schedule more steps, or stop here",
    ),
    HealthRule(
        "lr_jump",
        "info",
        rate_jump,
        limit=4,
        message="the learning rate went from {before:.1e} to {after:.1e} in one update",
        suggestion="if it was not meant, use a schedule with warmup_steps=100",
    ),
)

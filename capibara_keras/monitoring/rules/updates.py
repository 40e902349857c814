"""Updates that are too large or too small beside the weights, and rates that cause it."""

from __future__ import annotations

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.indicators import typical_ratios
from capibara_keras.monitoring.robust import median
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["RULES"]

SETTLED, UNSETTLED = 15, 3
"""Until so many updates the ratio may be so many times the limit: the first ones of Adam are large by design."""

RISEN = 1.5
"""Times the first loss, from which on a start without warmup went up."""

GROWN = 30
"""Updates in which the ratio of a layer that began at 0 says nothing: after t steps of one size it is 1/t or more."""


def too_large(history: History, limit: float) -> Finding | None:
    """The median layer changes by more than `limit` of its norm per update."""
    settled = history.updates > SETTLED and len(history.layer_changes) >= 3
    ratios = typical_ratios(history, 10 if settled else 1)
    if history.updates < GROWN:
        ratios = np.where(history.first_parameters > 0, ratios, np.nan)
    usual = median(ratios[~np.isnan(ratios)])
    allowed = limit if settled else UNSETTLED * limit
    if not usual > allowed:
        return None
    worst = [i for i in np.argsort(-np.nan_to_num(ratios), kind="stable") if ratios[i] > limit]
    numbers = {"rate": history.latest.learning_rate / 10, "allowed": allowed}
    return Finding(usual, history.subject.names(worst), numbers)


def too_small(history: History, limit: float) -> Finding | None:
    """The median layer changes by less than `limit` of its norm per update, though neither rate nor gradient is 0."""
    if len(history.layer_changes) < 20 or not history.rates.last().all() or not history.gradients.last().any():
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
    rising = early > RISEN * history.first_loss > 0
    ratios = typical_ratios(history, 5) if history.updates >= 10 and len(history.layer_changes) else np.full(1, np.nan)
    usual = median(ratios[~np.isnan(ratios)])
    if not (rising or usual > limit):
        return None
    went_up = f"the loss went from {history.first_loss:.3g} to {early:.3g} (limit {RISEN:g} times)"
    moved = f"an update changes the median layer by {usual:.1%} of its norm (limit {limit:.1%})"
    return Finding(usual, (), {"rate": x.learning_rate, "seen": moved if usual > limit else went_up})


RULES = (
    HealthRule(
        "update_ratio_high",
        "warning",
        too_large,
        limit=0.1,
        message="each update changes the median layer by {value:.2g} times its norm (limit {allowed:.2g}){layers}",
        suggestion="train with a tenth of the rate: learning_rate={rate:.1e}",
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
        message="each update changes the median layer by {value:.1e} of its norm (limit {limit:.0e})",
        suggestion="train with 10 times the rate: learning_rate={rate:.1e}",
        needs="measurement",
        hold=5,
        causes=("lr_zero", "adam_epsilon_dominant", "fp16_underflow"),
    ),
    HealthRule(
        "weight_decay_dominant",
        "warning",
        decay_dominates,
        limit=0.5,
        message="weight decay makes up {value:.0%} of the update (limit {limit:.0%}); the weights' norm fell from "
        "{start:.3g} to {now:.3g}",
        suggestion="set weight_decay to a tenth of what it is",
        needs="measurement",
        hold=3,
    ),
    HealthRule(
        "warmup_missing",
        "warning",
        no_warmup,
        limit=0.02,
        message="a transformer started at the full rate {rate:.1e}, and {seen}",
        suggestion="warm the rate up over 2 / (1 - beta_2) updates: warmup_steps=2000 for beta_2=0.999",
        causes=("weight_decay_dominant",),
    ),
    HealthRule(
        "lr_zero",
        "warning",
        rate_zero,
        limit=1e-6,
        message="the learning rate has been {value:.1e} for 20 updates; the limit is {limit:.0e} of the largest, "
        "{peak:.1e}",
        suggestion="stop here, or give the schedule a floor: min_lr_ratio=0.1",
    ),
    HealthRule(
        "lr_jump",
        "info",
        rate_jump,
        limit=4,
        message="the learning rate went from {before:.1e} to {after:.1e} in one update, {value:.1f} times (limit "
        "{limit:g})",
        suggestion="if that was not meant, use a schedule with warmup_steps=100",
    ),
)

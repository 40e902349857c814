"""Gradients that are far too large, far too small, or not there."""

from __future__ import annotations

import numpy as np

from capibara_keras.monitoring.history import WINDOW, History
from capibara_keras.monitoring.indicators import explosion, vanishing
from capibara_keras.monitoring.order import again
from capibara_keras.monitoring.robust import median, median_deviation
from capibara_keras.monitoring.rules.rule import Finding, HealthRule, rounded

__all__ = ["RULES"]

MINIMUM = 20
SILENCE = 50
"""Updates; a unit of a sparse input or of small batches may well be silent for 20 and come back."""


def exploding(history: History, limit: float) -> Finding | None:
    """The norm is 10^limit times the recent median, farther than 8 deviations, and larger than ever before: back from
    a small norm to an old one is no explosion."""
    norm = history.latest.gradient_norm
    if not np.isfinite(norm) or history.gradients.count <= MINIMUM or norm <= history.peak_gradient:
        return None
    excess, _ = explosion(history)
    before = history.gradients.before(WINDOW)
    allowed = max(limit, 8 * median_deviation(np.log10(np.maximum(before, 1e-300))))
    if excess <= allowed:
        return None
    if again(norm, median(before), history.order.norms_around()):
        return None
    now, then = history.layer_gradients.last(1), history.layer_gradients.before(WINDOW)
    layers: tuple[str, ...] = ()
    if len(then):
        usual = np.maximum(np.nan_to_num(np.median(then, axis=0), nan=np.inf), 1e-300)
        growth = np.where(np.isnan(now[0]), 0.0, now[0] / usual)
        worst = np.argsort(-growth, kind="stable")
        layers = history.subject.names([i for i in worst if growth[i] >= 10 ** (limit / 2)])
    clip = rounded(float(np.percentile(before, 90)))
    return Finding(10**excess, layers, {"norm": norm, "clip": clip, "allowed": 10**allowed})


def huge(history: History, limit: float) -> Finding | None:
    """The norm is above a million, and `limit` times that of the parameters: no step along it can be right."""
    norm = history.latest.gradient_norm
    scale = history.measured.last(1)[0, 1] if len(history.measured) else np.inf
    if not (np.isfinite(norm) and norm > 1e6 and norm > limit * scale):
        return None
    worst = np.argsort(-np.nan_to_num(history.layer_gradients.last(1)[0]), kind="stable")[:1]
    return Finding(norm / scale, history.subject.names(worst), {"norm": norm, "clip": 1.0})


def small_at_input(history: History, limit: float) -> Finding | None:
    """Layers from the input on have gradients smaller than `limit` times the largest."""
    found, powers = vanishing(history, limit)
    if not len(found) or (history.silent_share(1)[found] > 0.6).any():  # units that are dying explain it
        return None
    return Finding(10**-powers, history.subject.names(found), {"ratio": 10**powers, "allowed": 1 / limit})


def missing(history: History, limit: float) -> Finding | None:
    """Trainable variables whose gradient is `None`."""
    absent = np.flatnonzero(history.absent >= limit)
    if not len(absent):
        return None
    layers = history.subject.names(np.unique(history.subject.layer_of[absent]))
    return Finding(float(history.absent[absent].max()), layers, {"variables": len(absent)})


def silent(history: History, limit: float) -> Finding | None:
    """Units that no gradient has reached for 50 updates, in layers that have at least 4."""
    if not len(history.unit_layers) or not history.latest.learning_rate > 0:
        return None
    share = history.silent_share(SILENCE)
    worst = [int(i) for i in np.argsort(-share, kind="stable") if share[i] > limit]
    if not worst or (history.silent >= SILENCE).all():  # no gradient at all is a loss of exactly 0, not a sick layer
        return None
    units = int(np.sum(history.unit_layers == worst[0]))
    numbers = {"dead": round(share[worst[0]] * units), "units": units, "updates": SILENCE}
    numbers["rate"] = history.latest.learning_rate / 10
    return Finding(float(share[worst[0]]), history.subject.names(worst), numbers)


def same_columns(history: History, limit: float) -> Finding | None:
    """Units of a layer that are all the same, and get the same gradient: they stay so."""
    probe, subject = history.latest.probe, history.subject
    if probe is None or not len(probe.equal_columns):
        return None
    bad = np.flatnonzero(np.nan_to_num(probe.equal_columns) > limit)
    if not len(bad):
        return None
    bad = bad[np.argsort(-probe.equal_columns[bad], kind="stable")]
    layers = subject.names(list(dict.fromkeys(subject.layer_of[bad].tolist())))
    return Finding(float(probe.equal_columns[bad[0]]), layers)


def saturated(history: History, limit: float) -> Finding | None:
    """A fixed limit clips nearly every update, and is far below the usual norm. Adam's step does not depend on the
    gradient's scale: there it does no harm."""
    norms, limits, clipped = history.clipping.last(50).T
    subject = history.subject
    if len(norms) < 50 or subject.adaptive or not subject.fixed_clip or clipped.mean() <= limit or np.isnan(limits[-1]):
        return None
    usual = median(norms)
    if usual <= 5 * limits[-1]:
        return None
    numbers = {"clip": limits[-1], "norm": usual, "times": usual / limits[-1], "better": rounded(usual)}
    return Finding(float(clipped.mean()), (), numbers)


RULES = (
    HealthRule(
        "gradient_explosion",
        "critical",
        exploding,
        limit=2,
        message="the gradient's norm is {norm:.3g}, {value:.3g} times (limit {allowed:.3g}) the median of the last 100 "
        "updates{layers}",
        suggestion="clip at the 90th percentile of the last 100 norms, global_clipnorm={clip:g}; where it is clipped "
        "already, skip such updates with skip_spikes=6",
    ),
    HealthRule(
        "gradient_huge",
        "critical",
        huge,
        limit=1e4,
        message="the gradient's norm is {norm:.3g}, {value:.3g} times (limit {limit:g}) that of the parameters{layers}",
        suggestion="clip: global_clipnorm={clip:g}; and scale the inputs to mean 0 and deviation 1 with "
        "keras.layers.Normalization",
        hold=3,
    ),
    HealthRule(
        "gradient_vanishing",
        "warning",
        small_at_input,
        limit=1e-3,
        message="gradients at the input are {ratio:.3g} times smaller (limit {allowed:.0f}) than the largest{layers}",
        suggestion='use activation="relu", kernel_initializer="he_normal", and keras.layers.LayerNormalization every '
        "2 layers",
        hold=4,
        every=5,
        causes=("no_gradient", "dead_units", "fp16_underflow", "symmetric_units", "weight_decay_dominant"),
    ),
    HealthRule(
        "no_gradient",
        "warning",
        missing,
        limit=10,
        message="trainable variables have had no gradient for {value:.0f} updates (limit {limit:g}): "
        "{variables}{layers}",
        suggestion="connect them to the loss (look for stop_gradient, or a layer whose output is not used), or set "
        "trainable=False",
    ),
    HealthRule(
        "dead_units",
        "warning",
        silent,
        limit=0.6,
        message="{dead} of {units} units ({value:.0%}, limit {limit:.0%}) have had no gradient at all for {updates} "
        "updates{layers}",
        suggestion='train with a tenth of the rate, learning_rate={rate:.1e}, and activation="leaky_relu"',
        needs="probe",
        hold=2,
        causes=("fp16_underflow", "no_gradient", "weight_decay_dominant"),
    ),
    HealthRule(
        "symmetric_units",
        "warning",
        same_columns,
        limit=0.9,
        message="{value:.0%} of the units are equal (limit {limit:.0%}), and will stay so{layers}",
        suggestion='initialise the kernel at random: kernel_initializer="glorot_uniform", or "he_normal" before ReLU',
        needs="probe",
        hold=5,
    ),
    HealthRule(
        "clipping_saturated",
        "warning",
        saturated,
        limit=0.9,
        message="{value:.0%} of the last 50 updates (limit {limit:.0%}) were clipped at {clip:g}; the usual norm is "
        "{norm:.3g}: the learning rate is in effect {times:.0f} times lower",
        suggestion="clip at the median norm: global_clipnorm={better:g}",
        hold=20,
    ),
)

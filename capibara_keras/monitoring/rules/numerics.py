"""Numbers that are not finite, too small for their format, or lost beside epsilon."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import PROBES, History
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["RULES"]

OVERFLOWS = 5
"""Updates in a row that must overflow under a loss scale, which finds its size by overflowing."""


def bad_parameter(history: History, limit: float) -> Finding | None:
    """Weights that are not finite."""
    x = history.latest
    if not math.isinf(x.parameter_norm) and not np.isinf(x.parameter_norms).any():
        return None
    bad = np.flatnonzero(np.isinf(x.parameter_norms))
    layers = history.subject.names(np.unique(history.subject.layer_of[bad]))
    return Finding(float(max(len(bad), 1)), layers, {"rate": x.learning_rate / 10})


def bad_loss(history: History, limit: float) -> Finding | None:
    """A loss that is not finite."""
    x = history.latest
    if not math.isinf(x.loss):
        return None
    return Finding(float(history.bad_losses), (), {"layer": "loss", "rate": x.learning_rate / 10})


def bad_gradient(history: History, limit: float) -> Finding | None:
    """A gradient that is not finite. It travels from where it arises towards the input: the last layer names it."""
    x = history.latest
    needed = OVERFLOWS if history.subject.loss_scaled else limit
    if history.bad_gradients < needed:
        return None
    bad = np.unique(history.subject.layer_of[np.flatnonzero(np.isinf(x.gradient_norms))])
    beside = ", and the loss is not" if math.isfinite(x.loss) else ""
    numbers = {"rate": x.learning_rate / 10, "needed": needed, "beside": beside}
    return Finding(float(history.bad_gradients), history.subject.names(bad[::-1]), numbers)


def half_precision(history: History, limit: float) -> Finding | None:
    """Small entries of the gradient all lie on the grid of float16's subnormal numbers, and many are 0."""
    probe, seen = history.latest.probe, history.half_precision
    if probe is None or len(seen) < PROBES or seen.last().mean() < limit:
        return None
    zero = np.where(history.subject.matrices[history.subject.layer_of], probe.zero_fraction, 0.0)
    order = history.subject.layer_of[np.argsort(-zero, kind="stable")]
    layers = history.subject.names(list(dict.fromkeys(order[np.sort(-zero) < -0.3].tolist())))
    return Finding(float(seen.last().mean()), layers, {"zero": float(zero.max())})


def below_epsilon(history: History, limit: float) -> Finding | None:
    """Adam's divisor is epsilon, not the gradient's size, for most entries."""
    probe, subject = history.latest.probe, history.subject
    if probe is None or not len(probe.below_epsilon) or history.updates < 20:
        return None
    known = ~np.isnan(probe.below_epsilon)
    weight = np.array([np.prod(shape) for shape in subject.shapes])[known]
    if not known.any():
        return None
    share = float(np.average(probe.below_epsilon[known], weights=weight))
    if share <= limit:
        return None
    worst = np.argsort(-np.where(known, probe.below_epsilon, -1.0), kind="stable")
    layers = subject.names(list(dict.fromkeys(subject.layer_of[worst[probe.below_epsilon[worst] > limit]].tolist())))
    return Finding(share, layers, {"epsilon": subject.epsilon, "lower": min(1e-8, subject.epsilon / 100)})


RULES = (
    HealthRule(
        "nonfinite_parameter",
        "critical",
        bad_parameter,
        limit=1,
        message="weights are NaN or infinite, in {value:.0f} of the variables{layers}",
        suggestion='go back to the last good weights, as HealthMonitor(on_critical="rollback") does, and go on with a '
        "tenth of the rate: learning_rate={rate:.1e}",
        once=True,
    ),
    HealthRule(
        "nonfinite_loss",
        "critical",
        bad_loss,
        limit=1,
        message="the loss is NaN or infinite",
        suggestion="look for NaN in the data of this batch and for log(0) or 0/0 in the loss; if there is none, train "
        "with a tenth of the rate: learning_rate={rate:.1e}",
        causes=("nonfinite_parameter",),
        once=True,
    ),
    HealthRule(
        "nonfinite_gradient",
        "critical",
        bad_gradient,
        limit=1,
        message="the gradient is NaN or infinite (updates in a row: {value:.0f}, limit {needed:.0f}){beside}{layers}",
        suggestion="look there for sqrt(0), log(0), 0/0 or a norm of zeros, and add 1e-6 inside; in float16 set "
        "loss_scale_factor=1024; if it happens again train with a tenth of the rate: learning_rate={rate:.1e}",
        causes=("nonfinite_parameter", "nonfinite_loss"),
        once=True,
    ),
    HealthRule(
        "fp16_underflow",
        "warning",
        half_precision,
        limit=0.9,
        message="gradients underflow in float16: up to {zero:.0%} of a layer's entries are 0, and in {value:.0%} of "
        "looks (limit {limit:.0%}) all small ones were multiples of 2^-24{layers}",
        suggestion="scale the loss: loss_scale_factor=1024",
        needs="probe",
    ),
    HealthRule(
        "adam_epsilon_dominant",
        "warning",
        below_epsilon,
        limit=0.5,
        message="for {value:.0%} of the weights (limit {limit:.0%}) the root of the second moment is below "
        "epsilon={epsilon:g}: steps are smaller than the learning rate says{layers}",
        suggestion="lower it: epsilon={lower:.0e}",
        needs="probe",
        hold=10,
        causes=("fp16_underflow", "no_gradient"),
    ),
)

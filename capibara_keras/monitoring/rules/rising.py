"""A loss that is far above where it was, or where it should be: divergence, spikes, a bad start."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.order import again
from capibara_keras.monitoring.robust import median, median_deviation
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["RULES"]

TAIL, TAIL_LOSSES = 3, 300
"""A spike is so many times as far above the usual loss as the farthest of so many before it: losses of batches have
long tails, of a few hard examples."""


def divergence(history: History, limit: float) -> Finding | None:
    """The loss is `limit` times what it was at the start, and at its best. Where batches come in one order, and these
    were hard ones an epoch ago too, that of the whole epoch must be."""
    if len(history.losses) < 16:
        return None
    now, start, best = median(history.losses.last(8)), history.first_loss, history.best_loss
    positive = start > 0 and best >= 0
    scale = float(np.fmax(abs(start), history.subject.baseline_loss)) if positive else abs(start - best)

    def is_far(loss: float, lowest: float) -> bool:
        return loss > limit * max(scale, lowest) if positive else loss - lowest > limit * scale > 0

    if not is_far(now, best):
        return None
    then, epoch = history.order.same_losses_before(8), median(history.epoch_losses(8))
    if len(then) and not is_far(now, median(then)) and not is_far(epoch, history.best_epoch_loss):
        return None
    bound = limit * max(scale, best) if positive else best + limit * scale
    numbers = {"layer": "loss", "loss": now, "start": start, "best": best, "bound": bound}
    return Finding(now / scale, (), numbers | {"rate": history.latest.learning_rate / 10})


def spike(history: History, limit: float) -> Finding | None:
    """One loss far above those before it; one that has been rising for a while is no spike."""
    losses = history.losses.last(51)
    if len(losses) <= 30:
        return None
    loss, before = float(losses[-1]), losses[:-1]
    highest = float(before.max())
    if loss <= highest:  # nearly always: what follows costs more
        return None
    usual, step = max(median(before), median(before[-5:])), median_deviation(np.diff(before))
    if loss - usual <= TAIL * (highest - usual):
        return None
    scale = max(abs(usual), 0.3 * abs(history.first_loss - history.best_loss))
    if not (loss - usual > limit * step and loss - usual > 0.5 * scale) or _usual_in_logarithms(
        losses, usual, limit / 2
    ):
        return None
    if loss - usual <= TAIL * _excesses(history.losses.before(TAIL_LOSSES)).max(initial=0.0):
        return None
    if again(loss, usual, history.order.losses_around()):
        return None
    return Finding((loss - usual) / max(step, 1e-300), (), {"layer": "loss", "loss": loss, "usual": usual})


def _excesses(losses: np.ndarray, window: int = 30) -> np.ndarray:
    """How far each loss is above the median of those before it."""
    if len(losses) <= window:
        return np.zeros(0)
    before = np.lib.stride_tricks.sliding_window_view(losses[:-1], window)
    return losses[window:] - np.median(before, axis=1)


def _usual_in_logarithms(losses: np.ndarray, usual: float, limit: float) -> bool:
    """Near 0, losses scatter by factors: a jump that is far in units may be no more than one of those."""
    if not (losses.min() > 0 and usual > 0):
        return False
    return math.log(losses[-1] / usual) <= limit * median_deviation(np.diff(np.log(losses[:-1])))


def bad_start(history: History, limit: float) -> Finding | None:
    """The first loss is far above that of a model which knows nothing."""
    baseline = history.subject.baseline_loss
    if history.losses.count != 1 or not baseline > 0 or not history.start_loss > limit * baseline:
        return None
    return Finding(history.start_loss / baseline, (), {"layer": "loss", "loss": history.start_loss, "base": baseline})


RULES = (
    HealthRule(
        "loss_divergence",
        "critical",
        divergence,
        limit=3,
        message="the loss is {loss:.3g} (limit {bound:.3g}); it was {start:.3g} at the start and {best:.3g} at best",
        suggestion="go back to the last good weights, and train with a tenth of the rate: learning_rate={rate:.1e}, "
        "warmup_steps=100",
        needs="loss",
        hold=5,
    ),
    HealthRule(
        "loss_spike",
        "warning",
        spike,
        limit=8,
        message="the loss is {loss:.3g}, {value:.0f} times as far above the usual {usual:.3g} as losses scatter from "
        "batch to batch (limit {limit:g})",
        suggestion="look at the data of update {step}; skip_spikes=6 skips an update whose gradient is as far out",
        needs="loss",
    ),
    HealthRule(
        "bad_init",
        "warning",
        bad_start,
        limit=4,
        message="the first loss is {loss:.3g}, {value:.1f} times (limit {limit:g}) that of a model that knows nothing, "
        "{base:.3g}",
        suggestion="scale the inputs to mean 0 and deviation 1 with keras.layers.Normalization, and make the initial "
        "weights of the last layer {value:.0f} times smaller with its kernel_initializer",
        needs="loss",
    ),
)

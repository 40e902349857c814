"""What the loss says: spikes, divergence, oscillation, no progress, overfitting."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.metrics import typical_ratios
from capibara_keras.monitoring.rules.rule import Finding, HealthRule
from capibara_keras.monitoring.statistics import block_medians, deviation, median, slope_interval

__all__ = ["RULES"]

PERIODS = (128, 256)
"""Losses that an oscillation is looked for in: of a period up to a third of them."""

SWING, LEAST_SWING = 0.2, 0.01
"""Amplitude as a share of the level or of what was gained; and the least share of the level that is worth a word."""

RISE = 2.0
"""Amplitudes that the loss rises by, in all, in a window that holds three periods at least: of a wave these are six."""

_QUADRATICS = {n: np.linalg.qr(np.vander(np.linspace(-1, 1, n), 3))[0] for n in PERIODS}
_HANN = {n: np.hanning(n) for n in PERIODS}
"""An orthonormal basis of the trends that are taken off, and the window."""

TAIL, TAIL_LOSSES = 3, 300
"""A spike is so many times as far above the usual loss as the farthest of so many before it: losses of batches have
long tails, of a few hard examples."""

LATE, LEARNED = 500, 200
"""Updates before a loss at the baseline is more than a late start, and losses whose mean is compared with it. Healthy
small trainings left the baseline as late as update 280."""

LOST = 0.1
"""Share of what the validation loss gained over the baseline that is lost again before it is called overfitting."""


def spike(history: History, limit: float) -> Finding | None:
    """One loss far above those before it; one that has been rising for a while is no spike."""
    losses = history.losses.last(51)
    if len(losses) <= 30:
        return None
    loss, before = float(losses[-1]), losses[:-1]
    highest = float(before.max())
    if loss <= highest:  # nearly always: what follows costs more
        return None
    usual, step = max(median(before), median(before[-5:])), deviation(np.diff(before))
    if loss - usual <= TAIL * (highest - usual):
        return None
    scale = max(abs(usual), 0.3 * abs(history.first_loss - history.best_loss))
    if not (loss - usual > limit * step and loss - usual > 0.5 * scale) or _usual_in_logarithms(
        losses, usual, limit / 2
    ):
        return None
    if loss - usual <= TAIL * _excesses(history.losses.before(TAIL_LOSSES)).max(initial=0.0):
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
    return math.log(losses[-1] / usual) <= limit * deviation(np.diff(np.log(losses[:-1])))


def divergence(history: History, limit: float) -> Finding | None:
    """The loss is `limit` times what it was at the start, and at its best."""
    if len(history.losses) < 16:
        return None
    now, start, best = median(history.losses.last(8)), history.first_loss, history.best_loss
    positive = start > 0 and best >= 0
    scale = max(abs(start), _known(history.subject.baseline_loss)) if positive else abs(start - best)
    if not (now > limit * scale and now > limit * best if positive else now - best > limit * scale > 0):
        return None
    numbers = {"layer": "loss", "loss": now, "start": start, "best": best}
    return Finding(now / scale, (), numbers | {"rate": history.latest.learning_rate / 10})


def oscillation(history: History, limit: float) -> Finding | None:
    """The loss swings with one period, far beside its level or beside what was gained."""
    for periods in PERIODS:
        found = _swing(history, history.losses.last(periods), limit) if len(history.losses) >= periods else None
        if found is not None:
            return found
    return None


def _swing(history: History, losses: np.ndarray, limit: float) -> Finding | None:
    """Whether one period has most of the power of losses without their trend, and they rise in it as well as fall: a
    fall that no parabola follows has a period too."""
    n = len(losses)
    basis, window = _QUADRATICS[n], _HANN[n]
    x = losses - basis @ (losses @ basis)
    power = np.abs(np.fft.rfft(x * window)) ** 2
    peak = int(np.argmax(power[3 : n // 4 + 1])) + 3
    share = float(power[peak - 1 : peak + 2].sum() / max(power[1:].sum(), 1e-300))
    swing, level, gained = (
        math.sqrt(2) * float(x.std()),
        abs(float(losses.mean())),
        history.first_loss - history.best_loss,
    )
    beside_level = swing > SWING * level and float(losses.min()) > 0
    beside_gain = swing > SWING * gained > 0 and swing > LEAST_SWING * level
    if not (share > limit and (beside_level or beside_gain)):
        return None
    quarter = max(1, n // (4 * peak))
    smooth = np.convolve(losses, np.full(quarter, 1.0 / quarter), "valid")
    if np.maximum(np.diff(smooth), 0).sum() < RISE * swing:
        return None
    numbers = {"layer": "loss", "period": n / peak, "amplitude": swing / max(level, 1e-300)}
    return Finding(share, (), numbers | {"rate": history.latest.learning_rate / 3})


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
    now = median(history.losses.last(30))
    if not now > limit * min(baseline, history.first_loss):
        return None
    return Finding(now / baseline, (), {"layer": "loss", "loss": now, "baseline": baseline, "late": LATE})


def not_learning(history: History, limit: float) -> Finding | None:
    """After 500 updates still not. The mean of many losses is compared, which a baseline is the expectation of: noise
    of batches hides a weak signal from anything shorter."""
    baseline = history.subject.baseline_loss
    if math.isnan(baseline) or history.losses.count < LATE or _trained(history):
        return None
    now = float(history.losses.last(LEARNED).mean())
    if not now > limit * baseline:
        return None
    return Finding(now / baseline, (), {"layer": "loss", "loss": now, "baseline": baseline, "late": LATE})


def plateau(history: History, limit: float) -> Finding | None:
    """The loss has stopped falling."""
    losses = history.losses.last(150)
    if len(losses) < 150:
        return None
    blocks, drop = block_medians(losses, 15), history.first_loss - history.best_loss
    low, high = slope_interval(blocks)
    gain = float(blocks[:3].mean() - blocks[-3:].mean())
    if not (low <= 0 <= high or (drop > 0 and gain < limit * drop)):
        return None
    return Finding(gain / drop if drop > 0 else 0.0, (), {"layer": "loss", "loss": float(blocks[-1]), "drop": drop})


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


def bad_start(history: History, limit: float) -> Finding | None:
    """The first loss is far above that of a model which knows nothing."""
    baseline = history.subject.baseline_loss
    if history.losses.count != 1 or not baseline > 0 or not history.start_loss > limit * baseline:
        return None
    return Finding(history.start_loss / baseline, (), {"layer": "loss", "loss": history.start_loss, "base": baseline})


def _trained(history: History) -> bool:
    """Whether training began with a model that knew much already."""
    return history.first_loss < 0.7 * _known(history.subject.baseline_loss)


def _known(x: float) -> float:
    return 0.0 if math.isnan(x) else x


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

RULES = (
    HealthRule(
        "loss_divergence",
        "critical",
        divergence,
        limit=3,
        message="the loss is {loss:.3g}; it was {start:.3g} at the start and {best:.3g} at best",
        suggestion="restore the last good weights; lower the learning rate 10 times, to {rate:.1e}, with a warmup of "
        "100 updates or more",
        needs="loss",
        hold=5,
    ),
    HealthRule(
        "loss_spike",
        "warning",
        spike,
        limit=8,
        message="the loss is {loss:.3g}; it was {usual:.3g} in the updates before",
        suggestion="look at the data of update {step}; in a long run go back 100 updates and skip the next 200 batches "
        "(Chowdhery et al. 2022)",
        needs="loss",
    ),
    HealthRule(
        "loss_oscillation",
        "warning",
        oscillation,
        limit=0.6,
        message="the loss swings with a period of {period:.0f} updates, by {amplitude:.0%}",
        suggestion="lower momentum (0.9 to 0.5) or the learning rate 3 times, to {rate:.1e}",
        needs="loss",
        hold=2,
        every=10,
    ),
    HealthRule(
        "slow_progress",
        "warning",
        slow,
        limit=0.05,
        message="the loss fell by {value:.1%} in all, and each update changes the median layer by {ratio:.1e} of its "
        "norm",
        suggestion="raise the learning rate 10 times, to {rate:.1e}",
        needs="loss",
        hold=3,
        every=10,
        causes=(
            "lr_zero",
            "no_gradient",
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
        message="the loss is {loss:.3g}; a model that knows nothing has {baseline:.3g}",
        suggestion="wait until update {late}: some tasks start late; a warmup of 100 updates and clipping at 1.0 help "
        "the start",
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
        message="the loss is {loss:.3g} after more than {late} updates; a model that knows nothing has {baseline:.3g}",
        suggestion="check that labels belong to their inputs and that layers are trainable; try the learning rate 10 "
        "times higher and 10 times lower",
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
        message="the loss has stayed near {loss:.3g} for 150 updates, after a gain of {drop:.3g}",
        suggestion="if that is not good enough, lower the learning rate 10 times or enlarge the model",
        needs="loss",
        hold=2,
        every=20,
        causes=("slow_progress", "late_start", "no_learning"),
    ),
    HealthRule(
        "overfitting",
        "warning",
        overfitting,
        limit=1.1,
        message="the validation loss is {loss:.3g}; its best was {best:.3g} at update {at}, and the training loss fell "
        "since",
        suggestion="go back to the weights of update {at}; stop there, or regularise (dropout 0.3, weight decay 0.1)",
        needs="validation",
        hold=2,
    ),
    HealthRule(
        "bad_init",
        "warning",
        bad_start,
        limit=4,
        message="the first loss is {loss:.3g}, {value:.1f} times that of a model that knows nothing ({base:.3g})",
        suggestion="scale the initial weights of the last layer down {value:.0f} times, or the inputs to mean 0 and "
        "deviation 1",
        needs="loss",
    ),
)

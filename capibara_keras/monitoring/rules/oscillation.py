"""A loss that swings with one period."""

from __future__ import annotations

import math

import numpy as np

from capibara_keras.monitoring.history import History
from capibara_keras.monitoring.rules.rule import Finding, HealthRule

__all__ = ["RULES"]

WINDOWS = (128, 256)
"""Losses that an oscillation is looked for in: of a period up to a third of them."""

SWING, LEAST_SWING = 0.2, 0.01
"""Amplitude as a share of the level or of what was gained; and the least share of the level that is worth a word."""

RISE = 2.0
"""Amplitudes that the loss rises by, in all, in a window that holds three periods at least: of a wave these are six."""

DATA = 0.7
"""Correlation with the losses of the same batches an epoch ago from which on the swing is that of the data."""

LONGER = 1.5
"""Epochs that a swing of one epoch may seem to take, so coarse are periods measured."""

_QUADRATICS = {n: np.linalg.qr(np.vander(np.linspace(-1, 1, n), 3))[0] for n in WINDOWS}
_HANN = {n: np.hanning(n) for n in WINDOWS}
"""An orthonormal basis of the trends that are taken off, and the taper."""


def oscillation(history: History, limit: float) -> Finding | None:
    """The loss swings with one period, far beside its level or beside what was gained."""
    for window in WINDOWS:
        found = _swing(history, history.losses.last(window), limit) if len(history.losses) >= window else None
        if found is not None:
            return found
    return None


def _swing(history: History, losses: np.ndarray, limit: float) -> Finding | None:
    """Whether one period has most of the power of losses without their trend, and they rise in it as well as fall: a
    fall that no parabola follows has a period too."""
    n = len(losses)
    x = losses - _QUADRATICS[n] @ (losses @ _QUADRATICS[n])
    power = np.abs(np.fft.rfft(x * _HANN[n])) ** 2
    peak = int(np.argmax(power[3 : n // 4 + 1])) + 3
    share = float(power[peak - 1 : peak + 2].sum() / max(power[1:].sum(), 1e-300))
    swing, level = math.sqrt(2) * float(x.std()), abs(float(losses.mean()))
    gained = history.first_loss - history.best_loss
    beside_level = swing > SWING * level and float(losses.min()) > 0
    beside_gain = swing > SWING * gained > 0 and swing > LEAST_SWING * level
    if not (share > limit and (beside_level or beside_gain)) or _rise(losses, n // (4 * peak)) < RISE * swing:
        return None
    if history.order.is_undecided() or _is_of_the_data(history, losses, n / peak):
        return None
    numbers = {"layer": "loss", "period": n / peak, "amplitude": swing / max(level, 1e-300)}
    return Finding(share, (), numbers | {"rate": history.latest.learning_rate / 3})


def _is_of_the_data(history: History, losses: np.ndarray, period: float) -> bool:
    """Whether the same batches swung so an epoch ago. What takes longer than an epoch is no order within it."""
    then = history.order.same_losses_before(len(losses))
    if not len(then) or period > LONGER * history.order.epoch_updates:
        return False
    return float(np.corrcoef(then, losses[-len(then) :])[0, 1]) > DATA


def _rise(losses: np.ndarray, length: int) -> float:
    """Sum of all that means of so many neighbours rise by."""
    smooth = np.convolve(losses, np.full(max(1, length), 1.0 / max(1, length)), "valid")
    return float(np.maximum(np.diff(smooth), 0).sum())


RULES = (
    HealthRule(
        "loss_oscillation",
        "warning",
        oscillation,
        limit=0.6,
        message="the loss swings by {amplitude:.0%} with a period of {period:.0f} updates, which has {value:.0%} "
        "(limit {limit:.0%}) of the power of its changes",
        suggestion="train with a third of the rate: learning_rate={rate:.1e}",
        needs="loss",
        hold=2,
        every=10,
    ),
)

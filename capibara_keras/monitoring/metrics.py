"""`OptimizationMetrics`: a training in numbers, from what `History` remembers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from capibara_keras.monitoring.history import WINDOW, History
from capibara_keras.monitoring.robust import block_medians, deviation, kendall_tau, median
from capibara_keras.records import Record

__all__ = ["LayerMetrics", "OptimizationMetrics", "explosion", "prefix", "vanishing"]

MINIMUM = 20
"""Norms that a statistic of norms needs."""

BLOCKS = 16


@dataclass(frozen=True, eq=False)
class LayerMetrics(Record):
    """One layer: norms of its last gradient, weights and update; `update_ratio` the median of the last ones.

    >>> LayerMetrics(1.0, 2.0, 0.02, 0.01)["update_ratio"]
    0.01
    """

    gradient_norm: float
    parameter_norm: float
    update_norm: float
    update_ratio: float


@dataclass(frozen=True, eq=False)
class OptimizationMetrics(Record):
    """What a training is doing. A number that is not known yet is `nan`. W is 100 updates.

    Args:
        current_lr: learning rate of the last update.
        grad_norm: norm of the last gradient, before clipping; `inf` if it was not finite.
        param_norm, update_norm: norm of the parameters before the last measured update, and of their change.
        update_ratio: median over layers of the change as a share of the layer's norm, median of the last 10
            measurements. Usual: 1e-4 to 1e-2.
        worst_update_ratio, worst_layer: the largest of them, and its layer.
        loss_smoothness: 1 - Σ(l_t - l_{t-1})² / 4 Σ(l_t - mean)² over W losses, at least 0 (von Neumann 1941):
            1 for a clean trend, ½ for noise around a level, 0 for strict alternation. Needs 10 losses.
        grad_variance: E|g - E g|² / |E g|². Below 1 the signal dominates; above 50 noise does: raise the batch size or
            lower the rate. From the norms of micro-batches where they are given (McCandlish et al. 2018, appendix A),
            else from |g_t|² and the product of g_t with the mean of the gradients before it that the algorithm keeps;
            `inf` where no signal is left, `nan` where neither is known. It is also their noise scale B_simple, in
            batches of an update: how many of them would make noise and signal equal.
        param_change_rate: |θ_t - θ_{t-n}| / (n |θ_{t-n}|) between the last two snapshots n >= W updates apart.
        progress_score: (1 - τ)/2, τ Kendall's correlation of 16 block medians of the last 1000 losses with time: 1
            while the loss falls, ½ for none, 0 while it rises. Needs 32 losses.
        explosion_risk: 0 to 1, from how far the last gradient is above the median of W; ½ at 10 times, 1 at 100 times.
        vanishing_risk: 0 to 1, from how much smaller gradients are at the model's input; 1 from 1000 times on.
        lr_stability: 1 for a smooth rate; 0 if it changed tenfold from one update to the next within W.
        param_stability: 1 if no layer's norm changed over W updates; 0 if one changed by half or more.
        layers: layer -> `LayerMetrics`.

    >>> from capibara_keras.monitoring import Monitor, Observation, Subject
    >>> monitor = Monitor(Subject(paths=("w",), shapes=((2, 2),)))
    >>> _ = monitor.observe(Observation(0, learning_rate=0.1, gradient_norm=2.0))
    >>> monitor.metrics()["grad_norm"], monitor.metrics().update_ratio
    (2.0, nan)
    """

    current_lr: float
    grad_norm: float
    param_norm: float
    update_norm: float
    update_ratio: float
    worst_update_ratio: float
    worst_layer: str
    loss_smoothness: float
    grad_variance: float
    param_change_rate: float
    progress_score: float
    explosion_risk: float
    vanishing_risk: float
    lr_stability: float
    param_stability: float
    layers: dict[str, LayerMetrics]

    @classmethod
    def of(cls, history: History) -> OptimizationMetrics:
        """Metrics as of the last observation."""
        x, ratios = history.latest, typical_ratios(history)
        known = np.flatnonzero(~np.isnan(ratios))
        worst = int(known[np.argmax(ratios[known])]) if len(known) else -1
        _, parameters, change, _ = history.measured.last(1)[0] if len(history.measured) else (math.nan,) * 4
        return cls(
            current_lr=x.learning_rate,
            grad_norm=x.gradient_norm,
            param_norm=float(parameters),
            update_norm=float(change),
            update_ratio=median(ratios[known]),
            worst_update_ratio=float(ratios[worst]) if len(known) else math.nan,
            worst_layer=history.subject.layers[worst] if len(known) else "",
            loss_smoothness=smoothness(history.losses.last(WINDOW)),
            grad_variance=history.noise,
            param_change_rate=history.parameter_change,
            progress_score=progress(history.losses.last()),
            explosion_risk=explosion_risk(history),
            vanishing_risk=vanishing_risk(history),
            lr_stability=rate_stability(history),
            param_stability=parameter_stability(history),
            layers=_layers(history, ratios),
        )


def typical_ratios(history: History, measurements: int = 10) -> np.ndarray:
    """Median update ratio of each layer over the last measurements; `nan` for layers that have none."""
    rows = history.update_ratios(measurements)
    return _median_of_columns(rows) if len(rows) else np.full(len(history.subject.layers), np.nan)


def smoothness(losses: np.ndarray) -> float:
    """1 - von Neumann's ratio / 4, at least 0; 1 for a constant.

    >>> round(smoothness(np.tile([0.0, 1.0], 50)), 2), smoothness(np.ones(10))
    (0.01, 1.0)
    """
    if len(losses) < 10:
        return math.nan
    variance = np.sum((losses - losses.mean()) ** 2)
    if variance <= (1e-12 * np.abs(losses).max()) ** 2:
        return 1.0
    return float(max(0.0, 1 - np.sum(np.diff(losses) ** 2) / (4 * variance)))


def progress(losses: np.ndarray) -> float:
    """(1 - Kendall's τ of 16 block medians) / 2.

    >>> progress(np.arange(32.0, 0.0, -1.0))
    1.0
    """
    if len(losses) < 2 * BLOCKS:
        return math.nan
    return (1 - kendall_tau(block_medians(losses, BLOCKS))) / 2


def explosion(history: History) -> tuple[float, float]:
    """How many powers of ten the last gradient is above the median before it, and how many deviations that is."""
    before = np.log10(np.maximum(history.gradients.before(WINDOW), 1e-300))
    if len(before) < MINIMUM:
        return math.nan, math.nan
    excess = math.log10(max(history.latest.gradient_norm, 1e-300)) - median(before)
    return excess, excess / max(deviation(before), 0.05)


def explosion_risk(history: History) -> float:
    """½ at 10 times the median and 1 at 100 times, if that is far outside of the usual; 1 for what is not finite."""
    x = history.latest
    if math.isnan(x.gradient_norm):
        return math.nan
    scale = history.measured.last(1)[0, 1] if len(history.measured) else math.inf
    if math.isinf(x.gradient_norm) or x.gradient_norm > 1e4 * scale > 0:
        return 1.0
    excess, deviations = explosion(history)
    if math.isnan(excess):
        return math.nan
    return min(1.0, max(0.0, excess) / 2) if deviations > 3 else 0.0


def prefix(rms: np.ndarray, matrices: np.ndarray, limit: float) -> np.ndarray:
    """Layers from the input on whose gradient is below `limit` of the largest; none if there is one layer only.

    A prefix, because attention's queries and keys are that small in a healthy transformer, but not the layers before.

    >>> prefix(np.array([1e-6, 1e-4, 1.0]), np.ones(3, bool), 1e-3).tolist()
    [0, 1]
    """
    known = np.flatnonzero(matrices & ~np.isnan(rms))
    if len(known) < 2 or not rms[known].max() > 0:
        return known[:0]
    small = rms[known] < limit * rms[known].max()
    return known[: len(known) if small.all() else int(np.argmin(small))]


def vanishing(history: History, limit: float) -> tuple[np.ndarray, float]:
    """Layers at the input with a small gradient, and the powers of ten by which the smallest is below the largest."""
    if len(history.layer_gradients) < MINIMUM:
        return np.zeros(0, np.int64), math.nan
    rms = gradient_rms(history)
    found = prefix(rms, history.subject.matrices, limit)
    if not len(found):
        return found, 0.0
    largest = np.nanmax(rms[history.subject.matrices])
    return found, math.log10(largest) - math.log10(max(rms[found].min(), 1e-300))


def gradient_rms(history: History) -> np.ndarray:
    """Median over the window of each layer's gradient, as a root mean square over its entries."""
    return _median_of_columns(history.layer_gradients.last()) / np.sqrt(history.subject.sizes)


def vanishing_risk(history: History) -> float:
    """0 up to a factor of 10, 1 from a factor of 1000 on. A gradient that is 0 everywhere says nothing."""
    _, powers = vanishing(history, 0.1)
    if len(history.gradients) and not history.gradients.last().any():
        return math.nan
    return powers if math.isnan(powers) else min(max((powers - 1) / 2, 0.0), 1.0)


def rate_stability(history: History) -> float:
    """1 - the largest change of the rate within W, in powers of ten; the first 20 updates and rates of 0 do not
    count."""
    rates = history.rates.last()
    skip = max(0, MINIMUM - (history.rates.count - len(rates)))
    rates = rates[skip:]
    if len(rates) < 2:
        return math.nan
    usable = (rates[:-1] > 0) & (rates[1:] > 0)
    if not usable.any():
        return 1.0
    return 1 - min(1.0, float(np.abs(np.log10(rates[1:][usable] / rates[:-1][usable])).max()))


def parameter_stability(history: History) -> float:
    """1 - twice the largest relative change of a layer's norm between now and W updates ago."""
    updates = history.measured.last()[:, 0]
    if len(history.layer_parameters) < 2 or updates[-1] - updates[0] < WINDOW:
        return math.nan
    now, then = history.layer_parameters.last(), np.searchsorted(updates, updates[-1] - WINDOW, side="right") - 1
    before = now[then]
    usable = history.subject.matrices & (before > 0) & ~np.isnan(now[-1])
    if not usable.any():
        return math.nan
    change = np.abs(now[-1][usable] / before[usable] - 1).max()
    return 1 - min(1.0, float(change) / 0.5)


def _layers(history: History, ratios: np.ndarray) -> dict[str, LayerMetrics]:
    nothing = np.full(len(history.subject.layers), np.nan)
    gradients, parameters, changes = (
        ring.last(1)[0] if len(ring) else nothing
        for ring in (history.layer_gradients, history.layer_parameters, history.layer_changes)
    )
    rows = zip(gradients.tolist(), parameters.tolist(), changes.tolist(), ratios.tolist(), strict=True)
    return {name: LayerMetrics(*row) for name, row in zip(history.subject.layers, rows, strict=True)}


def _median_of_columns(rows: np.ndarray) -> np.ndarray:
    """Medians without `nan`; of columns that have nothing else, `nan`. Sorting puts `nan` last."""
    ordered, columns = np.sort(rows, axis=0), np.arange(rows.shape[1])
    known = np.count_nonzero(~np.isnan(rows), axis=0)
    low, high = np.maximum(known - 1, 0) // 2, known // 2
    high = np.minimum(high, len(rows) - 1)
    return (ordered[low, columns] + ordered[np.where(known > 0, high, low), columns]) / 2

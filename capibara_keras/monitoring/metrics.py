"""`OptimizationMetrics`: a training in numbers, from what `History` remembers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from capibara_keras.monitoring.history import WINDOW, History
from capibara_keras.monitoring.indicators import (
    explosion_risk,
    parameter_stability,
    progress,
    rate_stability,
    smoothness,
    typical_ratios,
    vanishing_risk,
)
from capibara_keras.monitoring.robust import median
from capibara_keras.records import Record

__all__ = ["LayerMetrics", "OptimizationMetrics"]


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


def _layers(history: History, ratios: np.ndarray) -> dict[str, LayerMetrics]:
    nothing = np.full(len(history.subject.layers), np.nan)
    gradients, parameters, changes = (
        ring.last(1)[0] if len(ring) else nothing
        for ring in (history.layer_gradients, history.layer_parameters, history.layer_changes)
    )
    rows = zip(gradients.tolist(), parameters.tolist(), changes.tolist(), ratios.tolist(), strict=True)
    return {name: LayerMetrics(*row) for name, row in zip(history.subject.layers, rows, strict=True)}

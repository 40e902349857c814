"""Whether a loss still falls, how fast, and when it will have fallen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.monitoring import decay, robust
from capibara_keras.records import Record

__all__ = ["STATUSES", "ConvergenceAnalysis", "analyze"]

STATUSES = ("undetermined", "diverging", "plateau", "converging", "converged")
"""What `ConvergenceAnalysis.status` can be."""

FEWEST = 20
"""Points below which nothing is said."""
FARTHEST = 100
"""An ETA of more than this many times the updates so far is no prediction."""


@dataclass(frozen=True, eq=False)
class ConvergenceAnalysis(Record):
    """What `analyze` found.

    Args:
        status: "converging"; "converged": at most 1% of the initial excess over the floor is left; "plateau": no fall
            that can be told from noise; "diverging"; "undetermined": fewer than 20 finite losses.
        rate: share of the excess over the floor that goes in one update, now; 0 on a plateau.
        eta_steps: updates until 1% of the initial excess is left; `nan` where that cannot be told.
        stability: 1 / (1 + (noise + unrecovered rise) / drop) in the window: 1 for a smooth fall, 0 if not finite.
        intervals: 95% intervals (low, high) of "rate", "eta_steps" and "floor"; an end that is open is infinite.
        model: "exponential" or "power", whose curve fits; "constant" or "none" without a fall.
        floor: the loss that the curve goes to.
        excess: of the last update over the floor, on the curve.
        noise: standard deviation of single losses around the curve.
        smoothed_loss: exponentially weighted mean at the end.
        gradient_rate: share by which the gradient's norm falls in one update (Theil-Sen); `nan` without a history.
            Near a minimum it is about half of `rate`.
        points: losses that were used: finite, and since the last jump of the learning rate.
        start: index of the first of them.

    >>> analyze([2.0**-t for t in range(40)]).status
    'converged'
    """

    status: str
    rate: float
    eta_steps: float
    stability: float
    intervals: dict[str, tuple[float, float]]
    model: str
    floor: float
    excess: float
    noise: float
    smoothed_loss: float
    gradient_rate: float
    points: int
    start: int


def analyze(
    loss_history: Sequence[float] | np.ndarray,
    gradient_history: Sequence[float] | np.ndarray | None = None,
    window_size: int | None = None,
    smoothing_factor: float = 0.99,
    *,
    learning_rates: Sequence[float] | np.ndarray | None = None,
) -> ConvergenceAnalysis:
    """Fit a falling curve to losses, and read rate and remaining updates off it.

    Args:
        loss_history: one per update; what is not finite is left out.
        gradient_history: norms of the gradient, of the same updates.
        window_size: last updates that `stability` is about; default: a fifth. Rate and ETA use all losses since the
            last jump of the learning rate, since a window of a curve tells little of its floor.
        smoothing_factor: weight of the past in `smoothed_loss`, in [0, 1). The fit uses the losses themselves: those of
            a smoothed curve hang together, and would make intervals too narrow.
        learning_rates: of the same updates; where one is more than twice or less than half of the one before, the fit
            starts anew.

    Raises:
        ConfigError: a bad argument.

    Source: `decay` for curve and intervals; McCandlish et al. 2018 and Kaplan et al. 2020 for power laws of losses.

    >>> import numpy as np
    >>> t, rng = np.arange(1000), np.random.default_rng(0)
    >>> found = analyze(1 + np.exp(-t / 400) + 0.05 * rng.normal(size=1000))
    >>> found.status, found.model, round(1 / found.rate, -1)
    ('converging', 'exponential', 400.0)
    """
    loss = _series("loss_history", loss_history)
    factor = errors.number("smoothing_factor", smoothing_factor, 0, 1, open_high=True)
    window = None if window_size is None else errors.integer("window_size", window_size, 2)
    norms = None if gradient_history is None else _series("gradient_history", gradient_history)
    start = 0 if learning_rates is None else _last_jump(_series("learning_rates", learning_rates), len(loss))
    tails = [series[-FEWEST:] for series in (loss, norms) if series is not None and len(series) >= 3]
    broken = any(float(np.mean(np.isfinite(tail))) < 0.5 for tail in tails)
    t = np.flatnonzero(np.isfinite(loss))
    t = t[t >= start] if np.sum(t >= start) >= FEWEST else t
    y = loss[t]
    known: dict[str, Any] = {
        "smoothed_loss": float(robust.smooth(y[-10_000:], factor)[-1]) if y.size else math.nan,
        "gradient_rate": math.nan if norms is None else _fall(norms),
        "points": int(y.size),
        "start": int(t[0]) if t.size else 0,
    }
    if broken or y.size < FEWEST:
        return _without_curve("diverging" if broken else "undetermined", 0.0 if broken else math.nan, known)
    t = t - t[0]
    if np.ptp(y) == 0:
        return _without_curve("plateau", 1.0, known, level=float(y[0]))
    found = decay.fit(t.astype(float), y)
    stability = _stability(t, y, found, window)
    if _rises(t, y):
        return _without_curve("diverging", stability, known, noise=found.sigma)
    if not found.falls:
        return _without_curve("plateau", stability, known, noise=found.sigma, level=float(robust.midmean(y)))
    return _with_curve(found, float(t[-1]), stability, known)


def _with_curve(found: decay.Fit, T: float, stability: float, known: dict[str, Any]) -> ConvergenceAnalysis:
    best, allowed = found.best, decay.profile(found)
    rates = allowed[:, 0] / T
    eta, etas = _eta(best.rate, best.ratio) * T, _eta(allowed[:, 0], allowed[:, 1]) * T
    floors = allowed[:, 2]
    straight = bool(allowed[:, 0].min() <= 1.01 * decay.SLOWEST)  # no floor in sight
    last = math.inf if straight or etas.max() > FARTHEST * T else float(etas.max())
    converged = best.remaining <= decay.DONE
    return ConvergenceAnalysis(
        status="converged" if converged else "converging",
        rate=best.rate / T,
        eta_steps=math.nan if math.isinf(last) else float(eta),
        stability=stability,
        intervals={
            "rate": (0.0 if straight else float(rates.min()), float(rates.max())),
            "eta_steps": (float(etas.min()), last),
            "floor": (-math.inf if straight else float(floors.min()), float(floors.max())),
        },
        model="power" if found.is_power else "exponential",
        floor=best.floor,
        excess=best.excess * best.remaining,
        noise=found.sigma,
        **known,
    )


def _without_curve(
    status: str, stability: float, known: dict[str, Any], noise: float = math.nan, level: float = math.nan
) -> ConvergenceAnalysis:
    """What is known where nothing falls."""
    flat = status == "plateau"
    return ConvergenceAnalysis(
        status=status,
        rate=0.0 if flat else math.nan,
        eta_steps=math.nan,
        stability=stability,
        intervals={"rate": (0.0, 0.0 if flat else math.inf), "eta_steps": (0.0, math.inf), "floor": (-math.inf, level)},
        model="constant" if flat else "none",
        floor=level,
        excess=0.0 if flat else math.nan,
        noise=noise if not flat or noise == noise else 0.0,
        **known,
    )


def _eta(rate: Any, ratio: Any) -> Any:
    """Updates, in units of T, from T until φ is DONE."""
    beyond = np.maximum(np.asarray(ratio) - 1, 1e-9)
    with np.errstate(over="ignore"):
        x = np.expm1(np.minimum(-math.log(decay.DONE) * beyond / (rate * (1 + beyond)), 700)) / beyond
    return np.maximum(x - 1, 0.0)


def _rises(t: np.ndarray, y: np.ndarray) -> bool:
    """Whether the end is clearly above the best that was reached, and still going up."""
    centres, values, _ = robust.bins(t.astype(float), y, 32, power=1)
    noise = robust.deviation(np.diff(values)) / math.sqrt(2)
    third = centres >= centres[0] + 2 / 3 * np.ptp(centres)
    _, low, _ = robust.theil_sen(centres[third], values[third])
    return bool(np.median(values[-3:]) > values.min() + max(6 * noise, 0.2 * np.ptp(values)) and low > 0)


def _stability(t: np.ndarray, y: np.ndarray, found: decay.Fit, window: int | None) -> float:
    size = min(len(y), window if window is not None else max(10, len(y) // 5))
    around = y - found.best(t / t[-1])
    noise = robust.deviation(around[-size:])
    _, values, _ = robust.bins(t.astype(float), y, 32)
    rise = max(0.0, float(values[-1] - values.min()) - 3 * found.sigma)
    drop = max(float(values[0] - values.min()), 1e-300)
    return 1 / (1 + (noise + rise) / drop)


def _fall(norms: np.ndarray) -> float:
    """Share by which norms fall in one update, over the last half."""
    t = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    t = t[t >= len(norms) // 2]
    if len(t) < FEWEST:
        return math.nan
    centres, values, _ = robust.bins(t.astype(float), np.log(norms[t]), 32)
    return -robust.theil_sen(centres, values)[0]


def _last_jump(rates: np.ndarray, length: int) -> int:
    """Index behind the last change of the rate by more than a factor of two."""
    if len(rates) != length:
        raise errors.ConfigError(f"learning_rates: expected one per loss, {length}, received {len(rates)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.abs(np.diff(np.log2(rates)))
    jumps = np.flatnonzero(steps > 1)
    return int(jumps[-1]) + 1 if jumps.size else 0


def _series(name: str, values: Any) -> np.ndarray:
    """One dimension of floats; `None` is `nan`."""
    try:
        array = np.asarray([math.nan if v is None else v for v in values], np.float64)
    except (TypeError, ValueError) as error:
        raise errors.ConfigError(f"{name}: expected a sequence of numbers, received {values!r:.80}") from error
    if array.ndim != 1:
        raise errors.ConfigError(f"{name}: expected one number per update, received an array of shape {array.shape}")
    return array

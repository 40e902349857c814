"""A curve that falls towards a floor: one family with the exponential and all power laws, and what data say of it.

    L(t) = c + a φ(t),   φ(t) = exp(-ρ q log(1 + (q-1) t/T) / (q-1)),   a > 0, q >= 1

T is the time of the last point. With q = 1 + T/t₀ and p = ρ q / (q-1) this is the power law (1 + t/t₀)^-p; its limit
q → 1 is the exponential exp(-ρ t/T). ρ/T is how fast the excess L - c shrinks at the end, relative to itself; q says
how much faster it did so at the start. For given (ρ, q), c and a are linear: variable projection (Golub and Pereyra
1973) leaves two parameters, which are searched on grids. All the curves that the data allow give the intervals
(profile likelihood; Bates and Watts 1988, section 6.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["DONE", "SLOWEST", "STEEPEST", "Decay", "project"]

SLOWEST = 0.02
"""Lowest ρ: a fall this straight cannot be told from a line."""
STEEPEST = 3e4
"""Highest q: t₀ = T / STEEPEST."""
DONE = 0.01
"""Share of the initial excess at which a curve counts as converged."""


@dataclass(frozen=True)
class Decay:
    """One curve of the family.

    Args:
        rate: ρ.
        ratio: q.
        floor, excess: c and a.

    >>> round(Decay(rate=4.6051702, ratio=1.0, floor=0.0, excess=1.0).remaining, 4)
    0.01
    """

    rate: float
    ratio: float
    floor: float
    excess: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """L at x = t/T."""
        return self.floor + self.excess * np.exp(_log_shape(x, np.array([self.rate]), np.array([self.ratio])))[0]

    @property
    def remaining(self) -> float:
        """What is left of the initial excess at x = 1."""
        return float(np.exp(_log_shape(np.ones(1), np.array([self.rate]), np.array([self.ratio])))[0, 0])


def project(x: np.ndarray, y: np.ndarray, w: np.ndarray, rate: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Rows (rss, c, a) of the best c and a > 0 for each pair (ρ, q); rss is infinite where the best a is not."""
    with np.errstate(under="ignore"):
        phi = np.exp(_log_shape(x, rate, ratio))
    share = w / w.sum()
    mean, level = phi @ share, float(y @ share)
    centred, rest = phi - mean[:, None], y - level
    power = (centred**2) @ w
    a = np.divide(centred @ (w * rest), power, out=np.zeros_like(power), where=power > 1e-30)
    rss = ((rest - a[:, None] * centred) ** 2) @ w
    return np.stack([np.where(a > 0, rss, np.inf), level - a * mean, a], axis=1)


def _log_shape(x: np.ndarray, rate: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """log φ, a row for each pair of parameters."""
    beyond = np.maximum(ratio - 1, 1e-9)[:, None]
    return -(rate * ratio)[:, None] * np.log1p(beyond * x) / beyond

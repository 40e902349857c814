"""Cosine annealing, with hard cycles or decaying warm restarts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras.schedules.arguments import unfit
from capibara_keras.schedules.base import FloorSchedule, cosine, fraction, mix, passed, real
from capibara_keras.types import Tensor

__all__ = ["CosineWithWarmup"]

_MOST_CYCLES = 2**16
_RESTART_DEFAULTS = {
    "restart_period": None,
    "restart_decay": 1.0,
    "restart_multiplier": 1.0,
    "restart_warmup_steps": 0,
}


@keras.saving.register_keras_serializable(package="capibara_keras")
@dataclass(frozen=True)
class CosineWithWarmup(FloorSchedule):
    """Cosine annealing with warm restarts (SGDR; Loshchilov & Hutter 2017, Equation 5).

        lr(t) = m + (P_i - m)/2 (1 + cos(pi (t - t_i)/L_i))   in cycle i, from t_i, of length L_i
        lr(t) = m                                             for t >= T

    With `cosine_cycles` = n: P_i = P, L_i = (T - W)/n.
    With `cosine_restarts`: P_i = max(P restart_decay^i, m), L_i = restart_period restart_multiplier^i; from
    the second on, a cycle begins with a linear rise from m to P_i over `restart_warmup_steps`, and the cosine
    takes the rest of L_i.
    Starts of cycles are rounded to whole updates, once; the last cycle is cut off at T.

    Args:
        peak_learning_rate: P.
        total_steps: T, in updates, warmup included.
        warmup_steps: W, in updates.
        min_learning_rate: floor m, at most P; it does not decay.
        warmup_init_lr: rate of the first update, if W > 0.
        cosine_cycles: how many times to anneal from P to m; need not be whole.
        cosine_restarts: restart every `restart_period` updates instead.
        restart_period: length of the first cycle, in updates.
        restart_decay: factor on the peak per restart, in (0, 1].
        restart_multiplier: factor on the cycle's length per restart, at least 1.
        restart_warmup_steps: in updates, less than `restart_period`.

    Raises:
        ConfigError: if an argument is out of range, T <= W, there are more than 65536 cycles or one shorter
            than an update, or if another argument needs, or excludes, `cosine_restarts`.

    >>> from capibara_keras.schedules import CosineWithWarmup
    >>> schedule = CosineWithWarmup(6e-4, total_steps=100_000, warmup_steps=2_000, min_learning_rate=6e-5)
    >>> f"{float(schedule(50_000)):.4e}"
    '3.3865e-04'
    """

    peak_learning_rate: float
    total_steps: int
    warmup_steps: int = 0
    min_learning_rate: float = 0.0
    warmup_init_lr: float = 0.0
    cosine_cycles: float = 1.0
    cosine_restarts: bool = False
    restart_period: int | None = None
    restart_decay: float = 1.0
    restart_multiplier: float = 1.0
    restart_warmup_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cosine_restarts:
            self._check_restarts()
        else:
            for name, default in _RESTART_DEFAULTS.items():
                if (value := getattr(self, name)) != default:
                    raise unfit(name, f"{default!r} without cosine_restarts=True", value)
            most = min(_MOST_CYCLES, self.total_steps - self.warmup_steps)
            if self.cosine_cycles > most:
                raise unfit("cosine_cycles", f"at most {most}, for this total", self.cosine_cycles)

    def _check_restarts(self) -> None:
        if self.cosine_cycles != 1:
            raise unfit("cosine_cycles", "1.0 with cosine_restarts=True", self.cosine_cycles)
        if self.restart_period is None:
            raise unfit("restart_period", "a number of updates with cosine_restarts=True", None)
        if self.restart_warmup_steps >= self.restart_period:
            bound = f"less than restart_period={self.restart_period}"
            raise unfit("restart_warmup_steps", bound, self.restart_warmup_steps)
        if len(self._starts) > _MOST_CYCLES + 1:
            bound = f"enough for at most {_MOST_CYCLES} cycles up to total_steps={self.total_steps}"
            raise unfit("restart_period", bound, self.restart_period)

    @classmethod
    def required(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        return super().required(given) + (("restart_period",) if given.get("cosine_restarts") else ())

    @cached_property
    def _starts(self) -> list[int]:
        """The starts of all cycles, counted from the end of warmup, and the end of the last."""
        span = self.total_steps - self.warmup_steps
        if self.restart_period is None:
            n = self.cosine_cycles
            return [round(i * span / n) for i in range(math.ceil(n) + 1)]
        starts, end, length = [0], 0.0, float(self.restart_period)
        while end < span and len(starts) <= _MOST_CYCLES + 1:
            end += length
            length *= self.restart_multiplier
            starts.append(round(end))
        return starts

    def anneal(self, step: Tensor) -> Tensor:
        u, m, starts = step - self.warmup_steps, self.min_learning_rate, self._starts
        if len(starts) == 2:
            return mix(m, self.peak_learning_rate, cosine(real(u) / real(float(starts[1]))))
        lengths = np.diff(np.array(starts, "float64"))
        peaks = np.maximum(self.peak_learning_rate * self.restart_decay ** np.arange(len(lengths)), m)
        rises = np.full(len(lengths), self.restart_warmup_steps, "int32")
        rises[0] = 0  # the warmup has been
        begins = np.array(starts[:-1], "int32")

        i = passed(u, begins[1:])
        v, rise = u - ops.take(begins, i), ops.take(rises, i)
        s = real(ops.maximum(v - rise, 0)) / ops.take(real(lengths - rises), i)
        return mix(m, ops.take(real(peaks), i), ops.minimum(fraction(v, rise), cosine(s)))

"""Synthetic trainings: a healthy one, and how to make it sick."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from capibara_keras.monitoring import Alert, Monitor, Observation, Probe, Subject

__all__ = ["SUBJECT", "healthy", "probe", "said", "watch"]

SUBJECT = Subject(
    paths=("a/kernel", "a/bias", "norm/scale", "b/kernel", "b/bias", "c/kernel", "c/bias"),
    shapes=((8, 16), (16,), (16,), (16, 16), (16,), (16, 4), (4,)),
    baseline_loss=1.4,
    adaptive=True,
    epsilon=1e-7,
)
"""Three layers and a norm."""


def healthy(n: int = 400, seed: int = 0, scale: float = 1.0) -> list[Observation]:
    """A loss that falls from 1.4 to .3 with noise, gradients that fall with it, ratios of 1e-3; `scale` multiplies the
    loss and with it the gradients."""
    rng = np.random.default_rng(seed)
    result = []
    for t in range(n):
        loss = 0.3 + 1.1 * np.exp(-t / 80) + 0.05 * rng.normal()
        gradients = loss * np.array([1.0, 0.3, 0.2, 1.2, 0.3, 1.5, 0.4]) * np.exp(0.2 * rng.normal(size=7))
        parameters = np.array([4.0, 0.5, 4.0, 4.0, 0.5, 3.0, 0.3]) * (1 + t / 4000)
        updates = 1e-3 * parameters * np.exp(0.1 * rng.normal(size=7))
        result.append(
            Observation(
                update=t,
                loss=scale * loss,
                learning_rate=1e-3,
                gradient_norm=scale * float(np.linalg.norm(gradients)),
                parameter_norm=float(np.linalg.norm(parameters)),
                update_norm=float(np.linalg.norm(updates)),
                gradient_norms=scale * gradients,
                parameter_norms=parameters,
                update_norms=updates,
                decay_norm=0.0,
                probe=probe(),
            )
        )
    return result


def probe(**changes: Any) -> Probe:
    """Nothing wrong."""
    n = len(SUBJECT.paths)
    matrix = np.array([True, False, False, True, False, True, False])
    unit_layers = np.repeat([0, 2, 3], [16, 16, 4])
    values = {
        "silent_updates": np.zeros(36, int),
        "unit_layers": unit_layers,
        "zero_fraction": np.zeros(n),
        "equal_columns": np.where(matrix, 0.0, np.nan),
        "below_epsilon": np.zeros(n),
        "half_precision": np.zeros(n),
        "small_entries": np.zeros(n),
    }
    return Probe(**(values | changes))


def changed(
    stream: Iterable[Observation], start: int, change: Callable[[Observation], dict[str, Any]], stop: int = 10**9
) -> list[Observation]:
    """The stream with observations from `start` to `stop` changed."""
    return [dataclasses.replace(x, **change(x)) if start <= x.update < stop else x for x in stream]


def watch(stream: Iterable[Observation], monitor: Monitor | None = None) -> list[Alert]:
    """What is said to a stream."""
    monitor = monitor or Monitor(SUBJECT)
    return [alert for observation in stream for alert in monitor.observe(observation)]


def said(stream: Iterable[Observation], monitor: Monitor | None = None) -> list[str]:
    """The ids of what is said, without hints."""
    return [alert.id for alert in watch(stream, monitor) if alert.level != "info"]

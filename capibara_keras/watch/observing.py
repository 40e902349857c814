"""Observations of recent updates, out of the optimizer's rings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from capibara_keras import backend
from capibara_keras.monitoring import Observation
from capibara_keras.pipeline import VARIABLE_HISTORY
from capibara_keras.readings import RecentUpdates
from capibara_keras.watch.followed import Followed

__all__ = ["observations"]

NUMBERS = ("learning_rate", "gradient_norm", "parameter_norm", "update_norm", "clip_threshold", "loss")
FLAGS = ("clipped", "skipped")
NORMS = ("gradient_norm", "parameter_norm", "update_norm")


def observations(
    optimizer: Any, followed: Followed, recent: RecentUpdates, losses: Sequence[float]
) -> list[Observation]:
    """One of each recent update.

    Args:
        optimizer: that made them.
        followed: of it.
        recent: read from it just now.
        losses: of these updates, for where it does not know them itself; nan for one that nobody knows.
    """
    indices = _indices(recent, int(backend.fetch(optimizer._iterations)))
    oldest = recent.numbers[-1] - VARIABLE_HISTORY
    of_micro_batches, micro = _micro_batches(optimizer)
    found = []
    for j, number in enumerate(recent.numbers.tolist()):
        values: dict[str, Any] = {name: float(recent.statistics[name][j]) for name in NUMBERS}
        values |= {name: bool(recent.statistics[name][j] == 1) for name in FLAGS}
        if math.isnan(values["loss"]):
            values["loss"] = losses[j]
        if number > oldest:
            values |= _norms(followed, recent, j)
        if number == of_micro_batches:
            values |= micro
        found.append(Observation(update=int(indices[j]), **values))
    return found


def _indices(recent: RecentUpdates, iterations: int) -> np.ndarray:
    """Index of each update among those that were not skipped; a skipped one has that of the next."""
    made = recent.statistics["skipped"] != 1
    return np.maximum(iterations - np.cumsum(made[::-1])[::-1], 0)


def _norms(followed: Followed, recent: RecentUpdates, j: int) -> dict[str, Any]:
    """By variable; those of parameters and changes where they were measured."""
    gradients, parameters, changes = (recent.variable_norms[name][j][followed.kept] for name in NORMS)
    if np.isnan(parameters).all():
        return {"gradient_norms": gradients}
    decay = followed.decay_norm(float(recent.statistics["learning_rate"][j]), parameters)
    return {
        "gradient_norms": gradients,
        "parameter_norms": parameters,
        "update_norms": changes,
        "decay_norm": decay,
    }


def _micro_batches(optimizer: Any) -> tuple[int, dict[str, Any]]:
    """Number of the last update that measured its micro-batches, and what it found. None did where it is -1; nor does
    it count on replicas, where each knows its own only."""
    state = optimizer._state
    if not state.probes or not state.window or backend.replicas(optimizer) > 1:
        return -1, {}
    _, square, number, count = backend.fetch(state.probes[-1]).tolist()
    if not count > 1:
        return -1, {}
    return int(number), {"micro_batches": int(count), "micro_square": square}

"""Reading back what recent updates did, as NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from capibara_keras import backend
from capibara_keras.pipeline import COUNTERS, STATISTICS, STATISTICS_HISTORY, VARIABLE_HISTORY, VARIABLE_NORMS, State
from capibara_keras.records import Record

__all__ = ["RecentUpdates", "attempts", "counters", "recent"]


@dataclass(frozen=True, eq=False)
class RecentUpdates(Record):
    """Recent updates, skipped ones included, oldest first.

    Args:
        numbers: which updates, counted with the skipped ones, from 0.
        statistics: name -> value per update; see `StepRecord`.
        variable_norms: "gradient_norm", "parameter_norm", "update_norm" -> array of shape (updates, variables): L2
            norms of the gradient before clipping (nan where there was none, inf where it was not finite), of the
            parameter before the update, and of its change (nan where not measured).

    >>> import capibara_keras as ck, keras
    >>> optimizer = ck.SGD(statistics_every=2)
    >>> for g in (1.0, 2.0, 4.0):
    ...     optimizer.apply([keras.ops.array([g])], [keras.Variable([0.0])] if not optimizer.built else None)
    >>> recent = optimizer.recent_updates(since=1)
    >>> recent.numbers.tolist(), recent.variable_norms["gradient_norm"].tolist()
    ([1, 2], [[2.0], [4.0]])
    """

    numbers: np.ndarray
    statistics: dict[str, np.ndarray]
    variable_norms: dict[str, np.ndarray]


def counters(state: State) -> dict[str, int]:
    """The counters by name."""
    return dict(zip(COUNTERS, backend.fetch(state.counters).tolist(), strict=True))


def attempts(state: State) -> int:
    """Updates so far, skipped ones included."""
    return int(backend.fetch(state.updates)) + counters(state)["skipped"]


def recent(state: State, since: int = 0, length: int = STATISTICS_HISTORY) -> RecentUpdates:
    """The updates from number `since` on, of the last `length` at most.

    Args:
        length: above `VARIABLE_HISTORY`, norms by variable are nan for the oldest.
    """
    stop = attempts(state)
    numbers = np.arange(max(since, stop - min(length, STATISTICS_HISTORY), 0), stop)
    statistics = backend.fetch(state.statistics)[numbers % STATISTICS_HISTORY]
    norms = backend.fetch(state.variable_norms)[:, numbers % VARIABLE_HISTORY].swapaxes(0, 1)
    norms = np.where((numbers >= stop - VARIABLE_HISTORY)[:, None, None], norms, np.nan)
    return RecentUpdates(
        numbers=numbers,
        statistics={name: statistics[:, i] for i, name in enumerate(STATISTICS)},
        variable_norms={name: norms[:, :, i] for i, name in enumerate(VARIABLE_NORMS)},
    )

"""The one data flow of an update: accumulate -> (sum over replicas) -> measure -> clip -> rule -> statistics.

Pure functions of tensors. What is fixed for a compiled step is in a `Plan`; everything that changes is in a
`State`. The optimizer holds a `State` of variables, and the backend turns it into a `State` of tensors and back.

A stage that touches whole variables (`measure_norm`, `change_variable`) is a function of one of them, and an
`Execution` applies it to all; what lies between (`decide`, `record`) works on scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from keras import ops

from capibara_keras import backend
from capibara_keras.execution import INLINE, Execution, Item
from capibara_keras.pipeline.change import change_variable
from capibara_keras.pipeline.clipping import with_limits
from capibara_keras.pipeline.data import (
    COUNTERS,
    STATISTICS,
    STATISTICS_HISTORY,
    VARIABLE_HISTORY,
    VARIABLE_NORMS,
    State,
)
from capibara_keras.pipeline.decision import SPIKE_HISTORY, decide, gather_slots
from capibara_keras.pipeline.gradients import arrived_gradient, make_items, measure_norm
from capibara_keras.pipeline.measurement import is_measured, measure_change, numbers_of
from capibara_keras.pipeline.statistics import record, watch_units
from capibara_keras.pipeline.window import accumulate, is_finite, window_is_full
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Tensor

__all__ = [
    "COUNTERS",
    "SPIKE_HISTORY",
    "STATISTICS",
    "STATISTICS_HISTORY",
    "State",
    "VARIABLE_HISTORY",
    "VARIABLE_NORMS",
    "accumulate",
    "is_finite",
    "update",
    "window_is_full",
]


def update(
    plan: Plan,
    state: State,
    grads: Sequence[Tensor | None] | None = None,
    run: Execution = INLINE,
    *,
    uncertain: frozenset[int] = frozenset(),
    schedule_step: Scalar | None = None,
    measure: bool = False,
) -> State:
    """One update from gradients that are summed over replicas.

    Args:
        grads: a gradient per variable, `None` where there is none. Default: the sums in the accumulators.
        run: how the stages are run.
        uncertain: with accumulation, the variables that may have had no gradient in the whole window.
        schedule_step: where to read the schedule, instead of at the number of updates so far.
        measure: measure the norms of parameters and of their change, whatever `plan.statistics_every` says.
    """
    items = make_items(plan, state, range(len(plan.variables)), grads, uncertain)
    index = [i for i, item in enumerate(items) if item.what.has_gradient and not item.what.plan.overwrite]
    shared: dict[str, Any] = {"window": list(state.window)}

    # Measure
    _, norms = run.each(partial(measure_norm, plan), [items[i] for i in index], shared)
    vector = norms[0] if norms else ops.zeros((0,), plan.dtype)

    # Clip
    decision = run.once(partial(decide, plan, index), state.rest, vector, gather_slots(plan, state), schedule_step)

    if state.probes:
        biases = [arrived_gradient(items[i]) if items[i].what.has_gradient else None for i in plan.watched]
        last_active = run.once(partial(watch_units, plan), state.rest, biases)

    shared |= {"decision": decision}
    items = with_limits(plan, items, index, decision.limits)
    numbers = _measured(plan, state, items, shared, run, measure)

    # Rule
    rows, (beyond,) = run.each(partial(change_variable, plan), items, shared)

    # Statistics
    recorded = run.once(partial(record, plan, index), state.rest, decision, vector, beyond, numbers)
    if state.probes:
        recorded["probes"] = [last_active, *recorded["probes"]]
    return state.with_rows(dict(enumerate(rows)))._replace(**recorded)


def _measured(
    plan: Plan, state: State, items: Sequence[Item], shared: Any, run: Execution, always: bool
) -> list[Tensor]:
    """The numbers of `measure_change`, each a vector over variables; nan where they are not due."""

    def now() -> list[Tensor]:
        return run.each(partial(measure_change, plan), items, shared)[1]

    def not_now() -> list[Tensor]:
        return [ops.full((len(items),), float("nan"), plan.dtype)] * numbers_of(plan)

    if always or plan.statistics_every == 1:
        return now()
    if plan.statistics_every is None:
        return not_now()
    return backend.cond(is_measured(plan, state), now, not_now)

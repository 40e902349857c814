"""What is measured now and then: norms of a variable and of its change, and what a monitor asks.

It only reads, before anything changes, and finds the change by the same rule. So it can be left out of most updates by
a condition that no state passes through, and the weights are the same whether it runs or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from capibara_keras import backend, probes
from capibara_keras.execution import Item, Row
from capibara_keras.pipeline.change import goes, moved, prepared, returned
from capibara_keras.pipeline.data import Part, State, attempts_so_far, finite_or_infinite
from capibara_keras.pipeline.gradients import arrived_gradient
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["is_measured", "measure_change", "numbers_of"]

MEASURED_AT_FIRST = 20
"""Updates at the start that are all measured, where anything is: that is when a rate that is too high shows."""


def is_measured(plan: Plan, state: State) -> Scalar:
    """Whether the next update is one of those that are measured."""
    assert plan.statistics_every is not None
    attempts = attempts_so_far(state)
    return ops.logical_or(attempts < MEASURED_AT_FIRST, attempts % plan.statistics_every == 0)


def numbers_of(plan: Plan) -> int:
    """How many numbers `measure_change` returns."""
    return 2 + (len(probes.ENTRIES) + len(probes.NUMBERS) if plan.statistics_every else 0)


def measure_change(
    plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any
) -> tuple[Row, tuple[Scalar, ...]]:
    """Stage: the norm of a variable and that of its change, then `probes.ENTRIES` and `probes.NUMBERS`; nan for what
    is not known."""
    v, unknown = part.plan, ops.full((), float("nan"), plan.dtype)
    if v.overwrite:
        return row, (unknown,) * numbers_of(plan)
    here = returned(plan, part, row, shared["decision"])
    norm = ops.sqrt(backend.sum_of_squares(ops.cast(here.param, v.dtype)))
    change, probed = ops.zeros_like(norm), [unknown] * (numbers_of(plan) - 2)
    if part.has_gradient:
        g, s, _ = prepared(plan, part, here, own, shared)
        _, delta = moved(plan, part, here, g, s, goes(own, shared["decision"]))
        change = ops.sqrt(backend.sum_of_squares(delta))
        probed = _probed(plan, part, here, g, own, s) if probed else probed
    return row, (*(finite_or_infinite(ops.cast(x, plan.dtype)) for x in (norm, change)), *probed)


def _probed(plan: Plan, part: Part, row: Row, g: Tensor, own: Mapping[str, Tensor], s: Scalars) -> list[Scalar]:
    """`probes.ENTRIES` of the gradient as it arrived, `probes.NUMBERS` of the one that the rule sees."""
    rule, unknown = plan.groups[part.plan.group].rule, ops.full((), float("nan"), plan.dtype)
    arrived = ops.cast(arrived_gradient(Item(part, row, own)), part.plan.dtype)
    found = list(probes.entries(arrived)) if plan.half_precision else [unknown] * len(probes.ENTRIES)
    average = getattr(rule, "average", None)
    found += probes.alignment(g, average(tuple(row.slots), s) if average else None)
    return [ops.cast(x, plan.dtype) for x in found]

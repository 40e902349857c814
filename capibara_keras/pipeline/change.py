"""One variable's part of an update: clip, rule, average, and the norms of what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from capibara_keras import backend, probes
from capibara_keras.execution import Item, Row
from capibara_keras.pipeline.clipping import clip_gradient
from capibara_keras.pipeline.data import Decision, Part, finite_or_infinite
from capibara_keras.pipeline.decision import frozen_unless, scalars_key
from capibara_keras.pipeline.gradients import arrived_gradient, mean_gradient
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["change_variable"]


def change_variable(
    plan: Plan, measure: bool, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any
) -> tuple[Row, tuple[Scalar, ...]]:
    """The new row of a variable; whether its gradient was clipped, its norm and the norm of its change, and where a
    monitor asks `probes.ENTRIES` and `probes.NUMBERS`."""
    v, old, decision, beyond = part.plan, row.param, shared["decision"], ops.zeros((), "bool")
    unknown = ops.full((), float("nan"), plan.dtype)
    delta, probed = None, [unknown] * (len(probes.ENTRIES) + len(probes.NUMBERS))
    if part.has_gradient:
        go = ops.logical_and(decision.ok, own["contributed"] > 0) if "contributed" in own else decision.ok
        if v.overwrite:
            g = own["gradient"] if "gradient" in own else row.accumulator[0]
            row = row._replace(param=ops.where(go, ops.cast(g, old.dtype), old))
        else:
            g = mean_gradient(plan, part, row, own, shared)
            g = ops.where(decision.ok, g, ops.zeros_like(g))
            g, beyond = clip_gradient(plan, part, g, old, own, decision.limits)
            s = Scalars(**decision.scalars[scalars_key(v.group, v.joined)])
            s = frozen_unless(go, s, plan.groups[v.group].rule) if "contributed" in own else s
            if measure and plan.statistics_every:
                probed = _probed(plan, part, row, g, own, s)
            row, delta = _updated(plan, part, row, g, s, go)
    row = _averaged(part, row, decision)
    if shared["window"] and row.accumulator:
        row = row._replace(accumulator=[ops.zeros_like(row.accumulator[0])])
    measured = (unknown, unknown)
    if measure and not v.overwrite:
        p_norm = ops.sqrt(backend.sum_of_squares(ops.cast(old, v.dtype)))
        d_norm = ops.zeros_like(p_norm) if delta is None else ops.sqrt(backend.sum_of_squares(delta))
        measured = tuple(finite_or_infinite(ops.cast(x, plan.dtype)) for x in (p_norm, d_norm))
    return row, (ops.cast(beyond, plan.dtype), *measured, *(probed if plan.statistics_every else ()))


def _probed(plan: Plan, part: Part, row: Row, g: Tensor, own: Mapping[str, Tensor], s: Scalars) -> list[Scalar]:
    """`probes.ENTRIES` of the gradient as it arrived, `probes.NUMBERS` of the one that the rule sees."""
    rule, unknown = plan.groups[part.plan.group].rule, ops.full((), float("nan"), plan.dtype)
    arrived = ops.cast(arrived_gradient(Item(part, row, own)), part.plan.dtype)
    found = list(probes.entries(arrived)) if plan.half_precision else [unknown] * len(probes.ENTRIES)
    s = Scalars(**{k: None if x is None else ops.cast(x, part.plan.dtype) for k, x in vars(s).items()})
    average = getattr(rule, "average", None)
    found += probes.alignment(g, average(tuple(row.slots), s) if average else None)
    return [ops.cast(x, plan.dtype) for x in found]


def _updated(plan: Plan, part: Part, row: Row, g: Tensor, s: Scalars, go: Scalar) -> tuple[Row, Tensor]:
    """New value and slots, and how much the value changed. If this update is skipped, `s` is frozen already."""
    v, old = part.plan, row.param
    rule, decays = plan.groups[v.group].rule, v.decays and hasattr(s, "weight_decay")
    s = Scalars(**{k: None if x is None else ops.cast(x, v.dtype) for k, x in vars(s).items()})
    if v.rate != 1.0:
        s = s.replace(rate=s.rate * v.rate, decay=None if s.decay is None else s.decay * v.rate)
    p = ops.cast(old, v.dtype)
    penalised = g + s.weight_decay * p if decays and plan.weight_decay_mode == "l2" else g
    delta, slots = rule.update(penalised, p, tuple(row.slots), s if decays else s.replace(decay=None))
    new = ops.where(go, p + delta, p)  # a delta of 0 would make -0 a 0
    if v.constraint is not None:
        new = ops.where(go, v.constraint(new), p)
        delta = new - p
    return row._replace(param=ops.cast(new, old.dtype), slots=list(slots)), delta


def _averaged(part: Part, row: Row, decision: Decision) -> Row:
    """Exponential moving average of the new weights (Polyak & Juditsky 1992)."""
    if not row.average:
        return row
    (average,) = row.average
    p = ops.cast(row.param, average.dtype)
    average = average + ops.cast(decision.averaging[str(part.plan.joined)], p.dtype) * (p - average)
    if decision.overwrites is not None:
        row = row._replace(param=ops.cast(ops.where(decision.overwrites, average, p), row.param.dtype))
    return row._replace(average=[average])

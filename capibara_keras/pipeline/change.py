"""One variable's part of an update: clip, rule, average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from capibara_keras.execution import Row
from capibara_keras.pipeline.clipping import clip_gradient
from capibara_keras.pipeline.data import Decision, Part
from capibara_keras.pipeline.decision import frozen_unless, scalars_key
from capibara_keras.pipeline.gradients import mean_gradient
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["change_variable", "goes", "moved", "prepared", "returned"]


def change_variable(
    plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any
) -> tuple[Row, tuple[Scalar]]:
    """Stage: the new row of a variable, and whether its gradient was clipped."""
    decision, beyond = shared["decision"], ops.zeros((), "bool")
    row = returned(plan, part, row, decision)
    old = row.param
    if part.has_gradient and part.plan.overwrite:
        g = own["gradient"] if "gradient" in own else row.accumulator[0]
        row = row._replace(param=ops.where(goes(own, decision), ops.cast(g, old.dtype), old))
    elif part.has_gradient:
        g, s, beyond = prepared(plan, part, row, own, shared)
        row, _ = moved(plan, part, row, g, s, goes(own, decision))
    row = _averaged(part, row, decision)
    if shared["window"] and row.accumulator:
        row = row._replace(accumulator=[ops.zeros_like(row.accumulator[0])])
    return row, (ops.cast(beyond, plan.dtype),)


def returned(plan: Plan, part: Part, row: Row, decision: Decision) -> Row:
    """The row with the point in which gradients are taken, should the variable hold the one to be evaluated."""
    v = part.plan
    rule, s = plan.groups[v.group].rule, decision.scalars[scalars_key(v.group, v.joined)]
    if decision.returns is None or not rule.two_points or not row.slots:
        return row
    p = ops.cast(row.param, v.dtype)
    goes_back = ops.logical_and(decision.returns, s["first"] == 0)  # before its first update both points are one
    p = ops.where(goes_back, rule.training(p, tuple(row.slots)), p)
    return row._replace(param=ops.cast(p, row.param.dtype))


def goes(own: Mapping[str, Tensor], decision: Decision) -> Scalar:
    """Whether this variable is updated: one without a gradient in the whole window is not."""
    return ops.logical_and(decision.ok, own["contributed"] > 0) if "contributed" in own else decision.ok


def prepared(
    plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any
) -> tuple[Tensor, Scalars, Scalar]:
    """What the rule gets: the clipped gradient, scalars; and whether it was clipped."""
    v, decision = part.plan, shared["decision"]
    g = mean_gradient(plan, part, row, own, shared)
    g = ops.where(decision.ok, g, ops.zeros_like(g))
    g, beyond = clip_gradient(plan, part, g, row.param, own, decision.limits)
    s = Scalars(**decision.scalars[scalars_key(v.group, v.joined)])
    s = frozen_unless(goes(own, decision), s, plan.groups[v.group].rule) if "contributed" in own else s
    return g, Scalars(**{k: None if x is None else ops.cast(x, v.dtype) for k, x in vars(s).items()}), beyond


def moved(plan: Plan, part: Part, row: Row, g: Tensor, s: Scalars, go: Scalar) -> tuple[Row, Tensor]:
    """New value and slots, and how much the value changed. If this update is skipped, `s` is frozen already."""
    v, old = part.plan, row.param
    rule, decays = plan.groups[v.group].rule, v.decays and hasattr(s, "weight_decay")
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

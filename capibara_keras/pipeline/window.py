"""Accumulation: a micro-batch is added to the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from keras import ops

from capibara_keras import backend
from capibara_keras.execution import INLINE, Execution, Item, Row
from capibara_keras.pipeline.clipping import clip_gradient, decide_limits, remember, with_limits
from capibara_keras.pipeline.data import Part, State, counted
from capibara_keras.pipeline.gradients import make_items
from capibara_keras.pipeline.measurement import is_measured
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Tensor

__all__ = ["accumulate", "is_finite", "window_is_full"]


def accumulate(
    plan: Plan,
    state: State,
    grads: Sequence[Tensor | None],
    run: Execution = INLINE,
    *,
    weight: Scalar | None = None,
    keep: Scalar | None = None,
) -> State:
    """Add a micro-batch to the window.

    Args:
        grads: of this replica alone, or with `clip_micro_batches` summed over replicas.
        weight: of the micro-batch in the mean; default 1.
        keep: false leaves the micro-batch out, as if it had not come.
    """
    count, full, total = state.window
    present = [i for i, g in enumerate(grads) if g is not None]
    items = make_items(plan, state, range(len(grads)), grads)
    weight = ops.ones_like(total) if weight is None else ops.cast(weight, total.dtype)
    keep = ops.ones((), "bool") if keep is None else keep
    shared: dict[str, Any] = {"weight": weight, "keep": keep, "window": list(state.window)}
    norms, clipped, finite = state.norms, ops.zeros((), "bool"), ops.ones((), "bool")
    if plan.clip_micro_batches:
        index = [i for i in present if not plan.variables[i].overwrite]
        _, (vector,) = run.each(partial(_micro_norm, plan), [items[i] for i in index], shared)
        norm = ops.sqrt(ops.sum(vector * vector))
        finite = ops.isfinite(norm)
        norms = remember(plan, state.rest, vector, norm, index, finite)
        limits, clipped, _ = decide_limits(plan, state.rest, vector, norm, index, norms)
        items, shared = with_limits(plan, items, index, limits), shared | {"limits": limits, "finite": finite}
    rows, (beyond,) = run.each(partial(_added, plan), [items[i] for i in present], shared)
    clipped = ops.logical_and(ops.logical_or(clipped, ops.any(beyond > 0)), finite)
    arrived = ops.array([g is not None for g in grads], state.contributed[0].dtype)
    one = ops.cast(keep, count.dtype)
    return state.with_rows(dict(zip(present, rows, strict=True)))._replace(
        window=[count + one, full, total + ops.where(keep, weight, ops.zeros_like(weight))],
        contributed=[state.contributed[0] + one * arrived],
        norms=norms,
        probes=_probes(plan, state, [items[i] for i in present], shared, run),
        counters=counted(state, micro_steps=ops.ones((), "bool"), dropped=ops.logical_not(keep), clipped=clipped),
    )


def is_finite(grads: Sequence[Tensor | None]) -> Scalar:
    """Whether the gradients of a micro-batch are finite, by their sum of squares."""
    squares = [ops.cast(backend.sum_of_squares(ops.cast(g, "float32")), "float32") for g in grads if g is not None]
    return ops.isfinite(ops.sum(ops.stack(squares)))


def window_is_full(window: Sequence[Tensor]) -> Scalar:
    """Whether the next update is due. Not `==`: a checkpoint may bring more micro-batches than now fill a window."""
    return window[0] >= window[1]


def _added(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> tuple[Row, tuple[Scalar]]:
    """The row with the micro-batch's gradient in its accumulator, and whether that was clipped."""
    (old,), g = row.accumulator, own["gradient"]
    beyond = ops.zeros((), "bool")
    if "limits" in shared and not part.plan.overwrite:
        g = _micro_gradient(plan, part, g, shared)
        bad = ops.full_like(g, float("nan"))  # clipping by value would make an infinite entry a finite one
        done, beyond = clip_gradient(plan, part, g, row.param, own, shared["limits"])
        g = done if plan.nonfinite == "propagate" else ops.where(shared["finite"], done, bad)
    g = ops.cast(g, old.dtype)
    new = ops.maximum(old, g) if part.plan.overwrite else old + ops.cast(shared["weight"], old.dtype) * g
    new = ops.where(shared["keep"], new, old) if plan.nonfinite == "drop_micro_batch" else new
    return row._replace(accumulator=[new]), (ops.cast(beyond, plan.dtype),)


def _probes(plan: Plan, state: State, items: Sequence[Item], shared: Any, run: Execution) -> list[Tensor]:
    """With the squared norm of this micro-batch in the sum of the window. In most windows nothing is measured, and
    nothing is if micro-batches are clipped one by one: their mean is not the gradient's then."""
    if not state.probes or plan.clip_micro_batches:
        return state.probes
    wanted = [item for item in items if not item.what.plan.overwrite]

    def now() -> Scalar:
        _, (norms,) = run.each(partial(_micro_norm, plan), wanted, shared)
        return ops.sum(ops.square(norms))

    def not_now() -> Scalar:
        return ops.full((), float("nan"), plan.dtype)

    square = now() if plan.statistics_every == 1 else backend.cond(is_measured(plan, state), now, not_now)
    *others, micro = state.probes
    total = micro[:1] + ops.where(shared["keep"], square, ops.zeros_like(square))
    return [*others, ops.concatenate([total, micro[1:]])]


def _micro_norm(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> tuple[Row, tuple[Scalar]]:
    g = _micro_gradient(plan, part, own["gradient"], shared)
    return row, (ops.cast(ops.sqrt(backend.sum_of_squares(g)), plan.dtype),)


def _micro_gradient(plan: Plan, part: Part, g: Tensor, shared: Any) -> Tensor:
    """The gradient of a micro-batch at its true scale."""
    arrived = 1.0 if plan.loss_scale is None else plan.loss_scale
    factor = ops.cast(shared["window"][1], plan.dtype) / arrived if plan.divided else 1.0 / arrived
    g = ops.cast(g, part.plan.dtype)
    return g * ops.cast(factor, g.dtype)

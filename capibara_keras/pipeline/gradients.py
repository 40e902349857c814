"""The gradient of an update, from what arrived or what was accumulated, and its norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from capibara_keras import backend
from capibara_keras.execution import Item, Row
from capibara_keras.pipeline.data import Part, State
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Tensor

__all__ = ["arrived_gradient", "make_items", "mean_gradient", "measure_norm"]


def make_items(
    plan: Plan,
    state: State,
    index: Sequence[int],
    grads: Sequence[Tensor | None] | None,
    uncertain: frozenset[int] = frozenset(),
) -> list[Item]:
    """What the stages work on: a gradient, or what is in the accumulator."""
    rows, items = state.rows, []
    for i in index:
        g = None if grads is None else grads[i]
        has_gradient = bool(rows[i].accumulator) if grads is None else g is not None
        own = {} if g is None else {"gradient": g}
        if i in uncertain:
            own["contributed"] = state.contributed[0][i]
        items.append(Item(Part(dataclasses.replace(plan.variables[i], path=""), has_gradient), rows[i], own))
    return items


def arrived_gradient(item: Item) -> Tensor:
    """The gradient, or the sum over the window, without any factor."""
    return item.own["gradient"] if "gradient" in item.own else ops.convert_to_tensor(item.row.accumulator[0])


def mean_gradient(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> Tensor:
    """The gradient of the mean loss in the dtype of the computation, negated for `maximize`."""
    g = ops.cast(own["gradient"] if "gradient" in own else row.accumulator[0], part.plan.dtype)
    divisor = _divisor(plan, shared["window"])
    if divisor is not None:
        g = g / ops.cast(divisor, g.dtype)
    return -g if plan.maximize else g


def _divisor(plan: Plan, window: Sequence[Tensor]) -> Scalar | None:
    """What the sum is divided by to give the gradient of the mean loss.

    Micro-batches were summed at the scale at which they arrived, or with `clip_micro_batches` at their true scale.
    """
    scale = None if plan.clip_micro_batches else plan.loss_scale
    if not window:
        return scale
    _, full, total = window
    full = ops.cast(full, plan.dtype)
    if plan.normalize:
        total = ops.cast(ops.where(total > 0, total, ops.ones_like(total)), plan.dtype)
        divisor = total / full if plan.divided and not plan.clip_micro_batches else total
    else:
        divisor = full if plan.divided and plan.clip_micro_batches else ops.ones_like(full)
    return divisor if scale is None else divisor * scale


def measure_norm(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> tuple[Row, tuple[Scalar]]:
    """Stage: the norm of a variable's gradient."""
    g = mean_gradient(plan, part, row, own, shared)
    return row, (ops.cast(ops.sqrt(backend.sum_of_squares(g)), plan.dtype),)

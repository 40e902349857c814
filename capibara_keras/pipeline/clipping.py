"""What the clip policies of the groups decide, and the clipped gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras import ops

from capibara_keras import history
from capibara_keras.clip import NoClip, Norms
from capibara_keras.execution import Item
from capibara_keras.pipeline.data import Part, State, hyperparameters_of, scattered
from capibara_keras.plan import Plan, VariablePlan
from capibara_keras.types import Scalar, Tensor

__all__ = ["clip_gradient", "decide_limits", "remember", "with_limits"]


def remember(
    plan: Plan, rest: State, norms: Tensor, norm: Scalar, index: Sequence[int], finite: Scalar
) -> list[Tensor]:
    """The clip policy's history with the norms of this update."""
    if not rest.norms:
        return []
    ring, count = rest.norms
    policy = plan.groups[0].clip
    if policy is None or not policy.per_parameter:
        return list(history.push(ring, count, norm[None], finite))
    values = scattered(norms, index, len(plan.variables))
    return list(history.push(ring, count, values, ops.logical_and(finite, ops.logical_not(ops.isnan(values)))))


def decide_limits(
    plan: Plan, rest: State, norms: Tensor, norm: Scalar, index: Sequence[int], memory: list[Tensor]
) -> tuple[list[Tensor | None], Scalar, Scalar]:
    """What the clip policies of the groups decide, whether any clips, and the threshold of group 0."""
    limits: list[Tensor | None] = [None] * len(plan.groups)
    clipped, threshold = ops.zeros((), "bool"), ops.full((), float("nan"), plan.dtype)
    for number, group in enumerate(plan.groups):
        mine = _limited(plan, index, number)
        if not mine or group.clip is None or isinstance(group.clip, NoClip):
            continue
        rows = memory[0] if memory and number == 0 else None
        if rows is not None and group.clip.per_parameter:
            rows = ops.take(rows, mine, axis=0)
        each = norms if len(mine) == len(index) else ops.take(norms, [index.index(i) for i in mine], axis=0)
        decided = group.clip.limits(Norms(each, norm, rows), hyperparameters_of(plan, rest, number))
        limits[number], clipped = decided.limit, ops.logical_or(clipped, decided.clipped)
        threshold = ops.cast(decided.threshold, plan.dtype) if number == 0 else threshold
    return limits, clipped, threshold


def _limited(plan: Plan, index: Sequence[int], number: int) -> list[int]:
    """The variables that the clip policy of a group acts on."""
    return [i for i in index if _clip_group(plan, plan.variables[i]) == number]


def _clip_group(plan: Plan, v: VariablePlan) -> int:
    """The group whose clipping acts on a variable."""
    return v.group if plan.groups[v.group].clip is not None else 0


def with_limits(plan: Plan, items: list[Item], index: Sequence[int], limits: Sequence[Tensor | None]) -> list[Item]:
    """Items that have their own limit where a policy decides for each variable by itself."""
    items = list(items)
    for number, limit in enumerate(limits):
        if limit is not None and len(limit.shape):
            for k, i in enumerate(_limited(plan, index, number)):
                items[i] = items[i]._replace(own={**items[i].own, "limit": limit[k]})
    return items


def clip_gradient(
    plan: Plan, part: Part, g: Tensor, p: Tensor, own: Mapping[str, Tensor], limits: Sequence[Tensor | None]
) -> tuple[Tensor, Scalar]:
    """The clipped gradient, and whether that shows only here."""
    number = _clip_group(plan, part.plan)
    policy, limit = plan.groups[number].clip, limits[number]
    if policy is None or limit is None:
        return g, ops.zeros((), "bool")
    return policy.clip(g, p, ops.cast(own.get("limit", limit), g.dtype), part.plan.units)

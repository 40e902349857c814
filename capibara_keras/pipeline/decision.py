"""What follows from the norms of the gradients: whether the update happens, its limits, rate and scalars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keras import ops

from capibara_keras import backend, history
from capibara_keras.pipeline.clipping import decide_limits, remember
from capibara_keras.pipeline.data import Decision, State, hyperparameters_of, shared_numbers
from capibara_keras.plan import Plan
from capibara_keras.rules import UpdateRule
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = ["decide", "frozen_unless", "gather_slots", "scalars_key"]

SPIKE_HISTORY = 128
"""Norms that a spike is measured against."""

SPIKE_MINIMUM = 16
"""How many of them there must be."""


def decide(
    plan: Plan,
    index: Sequence[int],
    rest: State,
    norms: Tensor,
    gathered: Mapping[str, Mapping[str, Tensor]],
    schedule_step: Scalar | None,
) -> Decision:
    """What follows from the norms of the gradients at `index`."""
    norm = ops.sqrt(ops.sum(norms * norms))
    finite = ops.isfinite(norm)
    spike, spikes = _spiked(plan, rest, norm, finite)
    ok = ops.logical_not(spike) if plan.nonfinite == "propagate" else ops.logical_and(finite, ops.logical_not(spike))
    none: list[Tensor | None] = [None] * len(plan.groups)
    limits, clipped, threshold, memory = none, ops.zeros((), "bool"), ops.full((), float("nan"), plan.dtype), rest.norms
    if not plan.clip_micro_batches:
        memory = remember(plan, rest, norms, norm, index, finite)
        safe, safe_norm = (ops.where(ok, x, ops.zeros_like(x)) for x in (norms, norm))
        limits, clipped, threshold = decide_limits(plan, rest, safe, safe_norm, index, memory)
    rate = _rate(plan, rest, schedule_step)
    averaging, overwrites = _averaging(plan, rest, ok)
    scalars = _prepared_scalars(plan, rest, rate, ok, gathered)
    returns = ops.logical_and(ok, rest.evaluating[0] > 0) if rest.evaluating else None
    return Decision(
        ok, norm, spike, rate, limits, clipped, threshold, scalars, averaging, overwrites, returns, memory, spikes
    )


def _spiked(plan: Plan, rest: State, norm: Scalar, finite: Scalar) -> tuple[Scalar, list[Tensor]]:
    """Whether the norm is far above the recent ones, and these with it. A spike is remembered too, so that
    a lasting change of level is accepted after a while."""
    if not rest.spikes:
        return ops.zeros((), "bool"), []
    ring, count = rest.spikes
    mean, deviation, n = history.spread(ring)
    far = norm > mean + shared_numbers(plan, rest).spike_sigma * deviation
    spike = ops.logical_and(ops.logical_and(far, n >= SPIKE_MINIMUM), finite)
    return spike, list(history.push(ring, count, norm[None], finite))


def _rate(plan: Plan, rest: State, schedule_step: Scalar | None) -> Scalar:
    rate = ops.cast(rest.rate, plan.dtype)
    if plan.schedule is None:
        return rate
    return rate * ops.cast(plan.schedule(rest.updates if schedule_step is None else schedule_step), plan.dtype)


def gather_slots(plan: Plan, state: State) -> dict[str, dict[str, Tensor]]:
    """By group: the slots that the rule wants to see of all its variables at once, as vectors."""
    found: dict[str, dict[str, Tensor]] = {}
    for number, group in enumerate(plan.groups):
        mine = [i for i, v in enumerate(plan.variables) if v.group == number and not v.overwrite]
        for name in group.rule.gathered if mine else ():
            places = {i: [s.name for s in group.rule.slots_for(tuple(state.params[i].shape))].index(name) for i in mine}
            values = [ops.cast(backend.read(state.slots[i][k]), plan.dtype) for i, k in places.items()]
            found.setdefault(str(number), {})[name] = ops.stack(values)
    return found


def _prepared_scalars(
    plan: Plan, rest: State, rate: Scalar, ok: Scalar, gathered: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, dict[str, Scalar]]:
    """For each group and time of joining: rate, decay, hyperparameters and what the rule derives from them;
    frozen if this update is skipped."""
    prepared = {}
    for number, joined in dict.fromkeys((v.group, v.joined) for v in plan.variables):
        rule, s = plan.groups[number].rule, hyperparameters_of(plan, rest, number)
        s = s.replace(**gathered.get(str(number), {}))
        decay = getattr(s, "weight_decay", None)
        if decay is not None:
            relative = rate / plan.peak
            modes = {"decoupled": rate, "independent": relative, "corrected": rate * relative, "l2": None}
            factor = modes[plan.weight_decay_mode]
            decay = None if factor is None else factor * decay
        s = rule.prepare(s.replace(rate=rate, decay=decay), ops.cast(rest.updates + (1 - joined), plan.dtype))
        prepared[scalars_key(number, joined)] = vars(frozen_unless(ok, s, rule))
    return prepared


def scalars_key(group: int, joined: int) -> str:
    """Where the scalars of a group, and of a time of joining, are found."""
    return f"{group}/{joined}"


def frozen_unless(go: Scalar, s: Scalars, rule: UpdateRule) -> Scalars:
    """`s`, or where `go` is false the values that change neither weights nor state."""
    neutral = {k: x for k, x in rule.neutral.items() if getattr(s, k, None) is not None}
    return s.replace(**{k: ops.where(go, getattr(s, k), ops.full_like(getattr(s, k), x)) for k, x in neutral.items()})


def _averaging(plan: Plan, rest: State, ok: Scalar) -> tuple[dict[str, Scalar], Scalar | None]:
    """By time of joining, the weight of the new value in the average: the first average is the value itself. And
    whether averages replace the weights now."""
    if "one_minus_ema_momentum" not in plan.shared:
        return {}, None
    usual, weights = shared_numbers(plan, rest).one_minus_ema_momentum, {}
    for joined in dict.fromkeys(v.joined for v in plan.variables):
        weight = ops.where(rest.updates == joined, ops.ones_like(usual), usual)
        weights[str(joined)] = ops.where(ok, weight, ops.zeros_like(weight))
    every = plan.ema_overwrite_frequency
    if not every:
        return weights, None
    return weights, ops.logical_and(ok, (rest.updates + 1) % ops.cast(every, rest.updates.dtype) == 0)

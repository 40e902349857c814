"""The one data flow of an update: accumulate -> (sum over replicas) -> measure -> clip -> rule -> statistics.

Pure functions of tensors. What is fixed for a compiled step is in a `Plan`; everything that changes is in a
`State`. The optimizer holds a `State` of variables, and the backend turns it into a `State` of tensors and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras import ops

from capibara_keras import backend
from capibara_keras.clip import ClipPolicy
from capibara_keras.rules import Scalars, UpdateRule
from capibara_keras.types import Scalar, Tensor

__all__ = ["COUNTERS", "STATISTICS", "Plan", "State", "VariablePlan", "accumulate", "update", "window_is_full"]

STATISTICS = (
    "learning_rate",
    "gradient_norm",
    "clipped",
    "skipped",
    "parameter_norm",
    "update_norm",
    "weight_decay_loss",
)
"""The entries of `State.statistics`."""

COUNTERS = ("micro_steps", "skipped", "clipped")
"""The entries of `State.counters`: micro-batches seen, updates skipped, updates clipped."""


class State(NamedTuple):
    """All that an update reads and writes. Lists have one entry per variable.

    Attributes:
        params: the model's variables.
        slots: the rule's state, a list per variable (empty for one that is overwritten with its gradient).
        averages: exponential moving averages of `params`; empty lists without EMA.
        accumulators: sums of gradients of the current window; empty lists without accumulation.
        window: with accumulation, how many micro-batches are in the window, and how many fill it; else empty.
        contributed: with accumulation, one integer vector: how many of them had a gradient, per variable.
        updates: updates so far.
        rate: the learning rate, or with a schedule its multiplier.
        hyperparameters: packed vector, see `Plan.hyperparameters`.
        counters: packed integer vector, see `COUNTERS`.
        statistics: packed vector of the last update, see `STATISTICS`.
        gradient_norms: L2 norms of the last update's gradients before clipping; nan where there was none, inf
            where one was not finite.
    """

    params: list[Tensor]
    slots: list[list[Tensor]]
    averages: list[list[Tensor]]
    accumulators: list[list[Tensor]]
    window: list[Tensor]
    contributed: list[Tensor]
    updates: Scalar
    rate: Scalar
    hyperparameters: Tensor
    counters: Tensor
    statistics: Tensor
    gradient_norms: Tensor


@dataclass(frozen=True)
class VariablePlan:
    """What is fixed about one variable.

    Args:
        path: its name in messages and patterns.
        dtype: of the computation: the variable's own, at least float32.
        decays: whether weight decay acts on it.
        overwrite: its gradient is its next value (float8 scales).
        constraint: Keras constraint or `None`.
    """

    path: str
    dtype: str
    decays: bool = True
    overwrite: bool = False
    constraint: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Plan:
    """What is fixed for a compiled step.

    Args:
        hyperparameters: names of the entries of `State.hyperparameters`: the rule's, then `weight_decay`,
            `clip_limit` and `one_minus_ema_momentum` where they exist.
        dtype: of scalars and statistics.
        schedule: `step -> rate`, or `None` for the rate in `State.rate`.
        peak: largest value of the rate's schedule, for independent weight decay.
        weight_decay_mode: "decoupled", "independent" or "l2".
        ema_overwrite_frequency: every so many updates the weights become their average.
        nonfinite: "propagate" lets a non-finite gradient through; any other policy skips the update.
        loss_scale: what the loss was multiplied by.
        fused: one compiled step for all variables, or one per variable.
    """

    rule: UpdateRule
    clip: ClipPolicy
    variables: tuple[VariablePlan, ...]
    hyperparameters: tuple[str, ...]
    dtype: str = "float32"
    schedule: Callable[[Scalar], Scalar] | None = None
    peak: float = 1.0
    weight_decay_mode: str = "decoupled"
    maximize: bool = False
    nonfinite: str = "skip"
    ema_overwrite_frequency: int | None = None
    loss_scale: float | None = None
    fused: bool = True


def accumulate(plan: Plan, state: State, grads: Sequence[Tensor | None]) -> State:
    """Add a micro-batch to the window. Local to a replica: nothing is communicated."""
    sums = list(state.accumulators)
    for i, (v, g) in enumerate(zip(plan.variables, grads, strict=True)):
        if g is not None:
            (old,) = state.accumulators[i]
            g = ops.cast(g, old.dtype)
            sums[i] = [ops.maximum(old, g) if v.overwrite else old + g]
    count, full = state.window
    present = ops.array([g is not None for g in grads], state.contributed[0].dtype)
    return state._replace(
        accumulators=sums,
        window=[count + 1, full],
        contributed=[state.contributed[0] + present],
        counters=state.counters + ops.array([1, 0, 0], state.counters.dtype),
    )


def window_is_full(state: State) -> Scalar:
    """Whether the next update is due. Not `==`: a checkpoint may bring more micro-batches than now fill a window."""
    count, full = state.window
    return count >= full


def update(
    plan: Plan,
    state: State,
    grads: Sequence[Tensor | None],
    *,
    uncertain: frozenset[int] = frozenset(),
    schedule_step: Scalar | None = None,
    measure: bool = False,
) -> State:
    """One update from gradients that are summed over replicas.

    Args:
        grads: a gradient per variable, `None` where there is none. With accumulation: the sums of the window.
        uncertain: with accumulation, the variables that may have had no gradient in the whole window.
        schedule_step: where to read the schedule, instead of at the number of updates so far.
        measure: also measure the norms of parameters and of their change.
    """
    index = [i for i, g in enumerate(grads) if g is not None and not plan.variables[i].overwrite]
    divisor = _divisor(plan, state)

    # Measure
    gs = [_prepared(plan, i, grads[i], divisor) for i in index]
    norms = [ops.cast(ops.sqrt(backend.sum_of_squares(g)), plan.dtype) for g in gs]
    norm_vector = ops.stack(norms) if norms else ops.zeros((0,), plan.dtype)
    norm = ops.sqrt(ops.sum(norm_vector * norm_vector))
    ok = ops.isfinite(norm) if plan.nonfinite != "propagate" else ops.ones((), "bool")

    # Clip
    s = _scalars(plan, state, schedule_step)
    gs = [ops.where(ok, g, ops.zeros_like(g)) for g in gs]
    gs, clipped = plan.clip.clip(gs, ops.where(ok, norm_vector, ops.zeros_like(norm_vector)), s.clip_limit)

    # Rule
    s = plan.rule.prepare(s, ops.cast(state.updates + 1, plan.dtype))
    live = _frozen_unless(ok, s, plan)
    params, slots, changes = list(state.params), list(state.slots), {}
    for i, g in zip(index, gs, strict=True):
        go = ops.logical_and(ok, state.contributed[0][i] > 0) if i in uncertain else ok
        si = _frozen_unless(go, s, plan) if i in uncertain else live
        params[i], slots[i], changes[i] = _updated(plan, state, i, g, si, go)
    for i, g in enumerate(grads):
        if g is not None and plan.variables[i].overwrite:
            go = ops.logical_and(ok, state.contributed[0][i] > 0) if i in uncertain else ok
            params[i] = ops.where(go, ops.cast(g, params[i].dtype), params[i])
    params, averages = _averaged(plan, state, params, s, ok)

    # Statistics
    measured = _measured(plan, state, changes, s) if measure else [ops.full((), float("nan"), plan.dtype)] * 3
    flags = [ops.cast(clipped, plan.dtype), ops.cast(ops.logical_not(ok), plan.dtype)]
    events = [ops.zeros_like(ok) if state.window else ops.ones_like(ok), ops.logical_not(ok), clipped]
    return state._replace(
        params=params,
        slots=slots,
        averages=averages,
        accumulators=[[ops.zeros_like(a) for a in row] for row in state.accumulators],
        window=[ops.zeros_like(state.window[0]), state.window[1]] if state.window else [],
        contributed=[ops.zeros_like(c) for c in state.contributed],
        updates=state.updates + ops.cast(ok, state.updates.dtype),
        counters=state.counters + ops.cast(ops.stack(events), state.counters.dtype),
        statistics=ops.stack([s.rate, norm, *flags, *measured]),
        gradient_norms=_scattered(norms, index, len(grads), plan.dtype),
    )


def _divisor(plan: Plan, state: State) -> Scalar | None:
    """What the summed gradient is divided by: micro-batches of the window times loss scale."""
    count = ops.cast(ops.maximum(state.window[0], 1), plan.dtype) if state.window else None
    scale = plan.loss_scale
    if count is None:
        return scale
    return count if scale is None else count * scale


def _prepared(plan: Plan, i: int, g: Tensor, divisor: Scalar | None) -> Tensor:
    """The gradient in the dtype of the computation, divided, negated for `maximize`."""
    g = ops.cast(g, plan.variables[i].dtype)
    if divisor is not None:
        g = g / ops.cast(divisor, g.dtype)
    return -g if plan.maximize else g


def _scalars(plan: Plan, state: State, schedule_step: Scalar | None) -> Scalars:
    """Hyperparameters by name, and the learning rate and decay that follow from them."""
    packed = [ops.cast(state.hyperparameters[i], plan.dtype) for i in range(len(plan.hyperparameters))]
    s = Scalars(**dict(zip(plan.hyperparameters, packed, strict=True)))
    rate = ops.cast(state.rate, plan.dtype)
    if plan.schedule is not None:
        step = state.updates if schedule_step is None else schedule_step
        rate = rate * ops.cast(plan.schedule(step), plan.dtype)
    decay = getattr(s, "weight_decay", None)
    if decay is not None:
        decay = {"decoupled": rate * decay, "independent": rate / plan.peak * decay, "l2": None}[plan.weight_decay_mode]
    return Scalars(**({"clip_limit": None} | vars(s))).replace(rate=rate, decay=decay)


def _frozen_unless(go: Scalar, s: Scalars, plan: Plan) -> Scalars:
    """`s`, or where `go` is false the values that change neither weights nor state."""
    neutral = {k: x for k, x in plan.rule.neutral.items() if getattr(s, k, None) is not None}
    return s.replace(**{k: ops.where(go, getattr(s, k), ops.full_like(getattr(s, k), x)) for k, x in neutral.items()})


def _updated(plan: Plan, state: State, i: int, g: Tensor, s: Scalars, go: Scalar) -> tuple[Tensor, list[Tensor], Tensor]:
    """New value and slots of variable `i`, and how much it changed. Unless `go`, `s` is frozen."""
    v, old = plan.variables[i], state.params[i]
    s = Scalars(**{k: None if x is None else ops.cast(x, v.dtype) for k, x in vars(s).items()})
    decays = v.decays and hasattr(s, "weight_decay")
    p = ops.cast(old, v.dtype)

    def apply() -> tuple[Tensor, tuple[Tensor, ...]]:
        penalised = g + s.weight_decay * p if decays and plan.weight_decay_mode == "l2" else g
        return plan.rule.update(penalised, p, tuple(state.slots[i]), s if decays else s.replace(decay=None))

    call = apply if plan.fused else backend.compiled(apply)
    delta, slots = call()
    new = ops.where(go, p + delta, p)  # a delta of 0 would make -0 a 0
    if v.constraint is not None:
        new = ops.where(go, v.constraint(new), p)
        delta = new - p
    return ops.cast(new, old.dtype), list(slots), delta


def _averaged(
    plan: Plan, state: State, params: list[Tensor], s: Scalars, ok: Scalar
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Exponential moving averages of the new weights (Polyak averaging); the first is the weights themselves."""
    if not any(state.averages):
        return params, state.averages
    weight = ops.where(state.updates == 0, ops.ones_like(s.one_minus_ema_momentum), s.one_minus_ema_momentum)
    weight = ops.where(ok, weight, ops.zeros_like(weight))
    every = plan.ema_overwrite_frequency
    due = None
    if every:
        due = ops.logical_and(ok, (state.updates + 1) % ops.cast(every, state.updates.dtype) == 0)
    params, averages = list(params), list(state.averages)
    for i, row in enumerate(state.averages):
        if row:
            p = ops.cast(params[i], row[0].dtype)
            average = row[0] + ops.cast(weight, p.dtype) * (p - row[0])
            averages[i] = [average]
            if due is not None:
                params[i] = ops.cast(ops.where(due, average, p), params[i].dtype)
    return params, averages


def _measured(plan: Plan, state: State, changes: dict[int, Tensor], s: Scalars) -> list[Scalar]:
    """Norm of the parameters, norm of their change, and the penalty that weight decay amounts to."""
    squares = {
        i: ops.cast(backend.sum_of_squares(ops.cast(p, v.dtype)), plan.dtype)
        for i, (p, v) in enumerate(zip(state.params, plan.variables, strict=True))
        if not v.overwrite
    }
    moved = [ops.cast(backend.sum_of_squares(d), plan.dtype) for d in changes.values()]
    decayed = [x for i, x in squares.items() if plan.variables[i].decays]
    zero = ops.zeros((), plan.dtype)
    return [
        ops.sqrt(sum(squares.values(), zero)),
        ops.sqrt(sum(moved, zero)),
        0.5 * getattr(s, "weight_decay", zero) * sum(decayed, zero),
    ]


def _scattered(norms: list[Scalar], index: list[int], size: int, dtype: str) -> Tensor:
    """A vector with `norms` at positions `index`, inf for nan, and nan elsewhere."""
    at = dict(zip(index, norms, strict=True))
    nan = ops.full((), float("nan"), dtype)
    vector, absent = ops.stack([at.get(i, nan) for i in range(size)]), ops.array([i not in at for i in range(size)])
    return ops.where(ops.logical_or(absent, ops.isfinite(vector)), vector, ops.full_like(vector, float("inf")))

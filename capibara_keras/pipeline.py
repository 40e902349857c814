"""The one data flow of an update: accumulate -> (sum over replicas) -> measure -> clip -> rule -> statistics.

Pure functions of tensors. What is fixed for a compiled step is in a `Plan`; everything that changes is in a
`State`. The optimizer holds a `State` of variables, and the backend turns it into a `State` of tensors and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keras import ops

from capibara_keras import backend, history
from capibara_keras.clip import ClipPolicy, Gradients, NoClip
from capibara_keras.rules import UpdateRule
from capibara_keras.types import Scalar, Scalars, Tensor

__all__ = [
    "COUNTERS",
    "STATISTICS",
    "GroupPlan",
    "Plan",
    "State",
    "VariablePlan",
    "accumulate",
    "update",
    "window_is_full",
]

STATISTICS = (
    "learning_rate",
    "gradient_norm",
    "clip_threshold",
    "clipped",
    "skipped",
    "parameter_norm",
    "update_norm",
    "weight_decay_loss",
)
"""The entries of `State.statistics`."""

COUNTERS = ("micro_steps", "skipped", "clipped", "spikes", "dropped")
"""The entries of `State.counters`: micro-batches seen, updates skipped (for whatever reason), updates clipped,
updates skipped as spikes, micro-batches dropped."""

STATISTICS_HISTORY = 256
"""Updates whose statistics are kept, so that reading every so often misses none."""

SPIKE_HISTORY, SPIKE_MINIMUM = 128, 16
"""Norms that a spike is measured against, and how many there must be."""


class State(NamedTuple):
    """All that an update reads and writes. Lists have one entry per variable; optional parts are empty lists.

    Attributes:
        params: the model's variables.
        slots: the rule's state, a list per variable (empty for one that is overwritten with its gradient).
        averages: exponential moving averages of `params`.
        accumulators: sums of gradients of the current window.
        window: with accumulation: micro-batches in the window, how many fill it, and the sum of their weights.
        contributed: with accumulation: one integer vector, how many of them had a gradient, per variable.
        norms: for a clip policy with memory: a ring of norms and the counts of its rows.
        spikes: for spike detection: a ring of global norms and its count.
        updates: updates so far.
        rate: the learning rate, or with a schedule its multiplier.
        hyperparameters: packed vector, see `Plan`.
        counters: packed integer vector, see `COUNTERS`.
        statistics: ring of the last `STATISTICS_HISTORY` updates (skipped ones included), a row each, see `STATISTICS`.
        gradient_norms: L2 norms of the last update's gradients before clipping; nan where there was none, inf
            where one was not finite.
    """

    params: list[Tensor]
    slots: list[list[Tensor]]
    averages: list[list[Tensor]]
    accumulators: list[list[Tensor]]
    window: list[Tensor]
    contributed: list[Tensor]
    norms: list[Tensor]
    spikes: list[Tensor]
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
        group: number of its group in `Plan.groups`.
        rate: multiplier of the learning rate.
        decays: whether weight decay acts on it.
        overwrite: its gradient is its next value (float8 scales).
        constraint: Keras constraint or `None`.
        units: axes of a unit, for unit-wise clipping; `None` leaves it unclipped there.
        joined: updates that the optimizer had seen when the variable came in; its bias correction starts there.
    """

    path: str
    dtype: str
    group: int = 0
    rate: float = 1.0
    decays: bool = True
    overwrite: bool = False
    constraint: Callable[[Tensor], Tensor] | None = None
    units: tuple[int, ...] | None = None
    joined: int = 0


@dataclass(frozen=True)
class GroupPlan:
    """Algorithm and clipping of the variables of one group.

    Args:
        clip: `None` for the clipping of group 0.
        hyperparameters: names of its entries in `State.hyperparameters`, from `offset` on.
    """

    rule: UpdateRule
    clip: ClipPolicy | None
    hyperparameters: tuple[str, ...]
    offset: int


@dataclass(frozen=True)
class Plan:
    """What is fixed for a compiled step.

    Args:
        groups: group 0 holds all variables that no other one claims.
        shared: names of the last entries of `State.hyperparameters`: `one_minus_ema_momentum`, `spike_sigma`.
        dtype: of scalars and statistics.
        schedule: `step -> rate`, or `None` for the rate in `State.rate`.
        peak: largest value of the rate's schedule, for independent weight decay.
        weight_decay_mode: "decoupled", "independent" or "l2".
        nonfinite: "propagate" lets a non-finite gradient through; "drop_micro_batch" leaves it out of its window;
            any other policy skips the update.
        loss_scale: what the loss was multiplied by.
        normalize: divide the sum of a window by the weights of its micro-batches.
        divided: the loss arrives divided by the number of micro-batches that fill a window.
        clip_micro_batches: clip before accumulating, not after.
        ema_overwrite_frequency: every so many updates the weights become their average.
        fused: one compiled step for all variables, or one per variable.
    """

    groups: tuple[GroupPlan, ...]
    variables: tuple[VariablePlan, ...]
    shared: tuple[str, ...] = ()
    dtype: str = "float32"
    schedule: Callable[[Scalar], Scalar] | None = None
    peak: float = 1.0
    weight_decay_mode: str = "decoupled"
    maximize: bool = False
    nonfinite: str = "skip"
    loss_scale: float | None = None
    normalize: bool = True
    divided: bool = False
    clip_micro_batches: bool = False
    ema_overwrite_frequency: int | None = None
    fused: bool = True


# Accumulation ----------------------------------------------------------------------------------------------


def accumulate(
    plan: Plan, state: State, grads: Sequence[Tensor | None], weight: Scalar | None = None, keep: Scalar | None = None
) -> State:
    """Add a micro-batch to the window.

    Args:
        grads: of this replica alone, or with `clip_micro_batches` summed over replicas.
        weight: of the micro-batch in the mean; default 1.
        keep: false leaves the micro-batch out, as if it had not come.
    """
    count, full, total = state.window
    weight = ops.ones_like(total) if weight is None else ops.cast(weight, total.dtype)
    norms, clipped = state.norms, ops.zeros((), "bool")
    if plan.clip_micro_batches:
        grads, norms, clipped = _clipped_micro_batch(plan, state, grads)
    keep = ops.ones((), "bool") if keep is None else keep
    sums = list(state.accumulators)
    for i, (v, g) in enumerate(zip(plan.variables, grads, strict=True)):
        if g is not None:
            (old,) = state.accumulators[i]
            g = ops.cast(g, old.dtype)
            new = ops.maximum(old, g) if v.overwrite else old + ops.cast(weight, old.dtype) * g
            sums[i] = [ops.where(keep, new, old) if plan.nonfinite == "drop_micro_batch" else new]
    present = ops.array([g is not None for g in grads], state.contributed[0].dtype)
    one = ops.cast(keep, count.dtype)
    return state._replace(
        accumulators=sums,
        window=[count + one, full, total + ops.where(keep, weight, ops.zeros_like(weight))],
        contributed=[state.contributed[0] + one * present],
        norms=norms,
        counters=_counted(state, micro_steps=ops.ones((), "bool"), dropped=ops.logical_not(keep), clipped=clipped),
    )


def is_finite(grads: Sequence[Tensor | None]) -> Scalar:
    """Whether the gradients of a micro-batch are finite, by their sum of squares."""
    squares = [ops.cast(backend.sum_of_squares(ops.cast(g, "float32")), "float32") for g in grads if g is not None]
    return ops.isfinite(ops.sum(ops.stack(squares)))


def window_is_full(window: Sequence[Tensor]) -> Scalar:
    """Whether the next update is due. Not `==`: a checkpoint may bring more micro-batches than now fill a window."""
    return window[0] >= window[1]


def _clipped_micro_batch(
    plan: Plan, state: State, grads: Sequence[Tensor | None]
) -> tuple[list[Tensor | None], list[Tensor], Scalar]:
    """Gradients at their true scale, clipped, and the history with their norms."""
    index = [i for i, g in enumerate(grads) if g is not None and not plan.variables[i].overwrite]
    arrived = 1.0 if plan.loss_scale is None else plan.loss_scale
    factor = ops.cast(state.window[1], plan.dtype) / arrived if plan.divided else 1.0 / arrived
    gs = [ops.cast(grads[i], plan.variables[i].dtype) for i in index]
    gs = [g * ops.cast(factor, g.dtype) for g in gs]
    norms = ops.stack([ops.cast(ops.sqrt(backend.sum_of_squares(g)), plan.dtype) for g in gs])
    norm = ops.sqrt(ops.sum(norms * norms))
    finite = ops.isfinite(norm)
    memory = _remembered(plan, state, norms, norm, index, finite)
    gs, clipped, _ = _clipped(plan, state, gs, norms, norm, index, memory)
    result = list(grads)
    for i, g in zip(index, gs, strict=True):
        bad = ops.full_like(g, float("nan"))  # clipping by value would make an infinite entry a finite one
        result[i] = g if plan.nonfinite == "propagate" else ops.where(finite, g, bad)
    return result, memory, ops.logical_and(clipped, finite)


# Update ----------------------------------------------------------------------------------------------------


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
    vector = ops.stack(norms) if norms else ops.zeros((0,), plan.dtype)
    norm = ops.sqrt(ops.sum(vector * vector))
    finite = ops.isfinite(norm)
    spike, spikes = _spiked(plan, state, norm, finite)
    ok = ops.logical_not(spike) if plan.nonfinite == "propagate" else ops.logical_and(finite, ops.logical_not(spike))

    # Clip
    gs = [ops.where(ok, g, ops.zeros_like(g)) for g in gs]
    clipped, threshold, memory = ops.zeros((), "bool"), ops.full((), float("nan"), plan.dtype), state.norms
    if not plan.clip_micro_batches:
        memory = _remembered(plan, state, vector, norm, index, finite)
        safe, safe_norm = (ops.where(ok, x, ops.zeros_like(x)) for x in (vector, norm))
        gs, clipped, threshold = _clipped(plan, state, gs, safe, safe_norm, index, memory)

    # Rule
    rate = _rate(plan, state, schedule_step)
    prepared = _prepared_scalars(plan, state, rate, ok)
    params, slots, changes = list(state.params), list(state.slots), {}
    for i, g in zip(index, gs, strict=True):
        s, go = prepared[plan.variables[i].group, plan.variables[i].joined], ok
        if i in uncertain:
            go = ops.logical_and(ok, state.contributed[0][i] > 0)
            s = _frozen_unless(go, s, plan.groups[plan.variables[i].group].rule)
        params[i], slots[i], changes[i] = _updated(plan, state, i, g, s, go)
    for i, g in enumerate(grads):
        if g is not None and plan.variables[i].overwrite:
            go = ops.logical_and(ok, state.contributed[0][i] > 0) if i in uncertain else ok
            params[i] = ops.where(go, ops.cast(g, params[i].dtype), params[i])
    params, averages = _averaged(plan, state, params, ok)

    # Statistics
    unmeasured = [ops.full((), float("nan"), plan.dtype)] * 3
    measured = _measured(plan, state, changes) if measure else unmeasured
    flags = [ops.cast(clipped, plan.dtype), ops.cast(ops.logical_not(ok), plan.dtype)]
    arrived = ops.zeros((), "bool") if state.window else ops.ones((), "bool")
    return state._replace(
        params=params,
        slots=slots,
        averages=averages,
        accumulators=[[ops.zeros_like(a) for a in row] for row in state.accumulators],
        window=[ops.zeros_like(state.window[0]), state.window[1], ops.zeros_like(state.window[2])]
        if state.window
        else [],
        contributed=[ops.zeros_like(c) for c in state.contributed],
        norms=memory,
        spikes=spikes,
        updates=state.updates + ops.cast(ok, state.updates.dtype),
        counters=_counted(state, micro_steps=arrived, skipped=ops.logical_not(ok), clipped=clipped, spikes=spike),
        statistics=_logged(state, ops.stack([rate, norm, threshold, *flags, *measured])),
        gradient_norms=_scattered(norms, index, len(grads), plan.dtype),
    )


def _divisor(plan: Plan, state: State) -> Scalar | None:
    """What the sum is divided by to give the gradient of the mean loss.

    The sum is of w_i g_i loss_scale / K, K = micro-batches per window where the loss came `divided` by them, else 1;
    clipped micro-batches were brought to their true scale before.
    """
    scale = None if plan.clip_micro_batches else plan.loss_scale
    if not state.window:
        return scale
    _, full, total = state.window
    full = ops.cast(full, plan.dtype)
    if plan.normalize:
        total = ops.cast(ops.where(total > 0, total, ops.ones_like(total)), plan.dtype)
        divisor = total / full if plan.divided and not plan.clip_micro_batches else total
    else:
        divisor = full if plan.divided and plan.clip_micro_batches else ops.ones_like(full)
    return divisor if scale is None else divisor * scale


def _prepared(plan: Plan, i: int, g: Tensor, divisor: Scalar | None) -> Tensor:
    """The gradient in the dtype of the computation, divided, negated for `maximize`."""
    g = ops.cast(g, plan.variables[i].dtype)
    if divisor is not None:
        g = g / ops.cast(divisor, g.dtype)
    return -g if plan.maximize else g


def _spiked(plan: Plan, state: State, norm: Scalar, finite: Scalar) -> tuple[Scalar, list[Tensor]]:
    """Whether the norm is far above the recent ones, and these with it. A spike is remembered too, so that
    a lasting change of level is accepted after a while."""
    if not state.spikes:
        return ops.zeros((), "bool"), []
    ring, count = state.spikes
    mean, deviation, n = history.spread(ring)
    far = norm > mean + _shared(plan, state).spike_sigma * deviation
    spike = ops.logical_and(ops.logical_and(far, n >= SPIKE_MINIMUM), finite)
    return spike, list(history.push(ring, count, norm[None], finite))


def _remembered(
    plan: Plan, state: State, norms: Tensor, norm: Scalar, index: list[int], finite: Scalar
) -> list[Tensor]:
    """The clip policy's history with the norms of this update."""
    if not state.norms:
        return []
    ring, count = state.norms
    policy = plan.groups[0].clip
    if policy is None or not policy.per_parameter:
        return list(history.push(ring, count, norm[None], finite))
    values = _scattered([norms[k] for k in range(len(index))], index, len(plan.variables), plan.dtype)
    return list(history.push(ring, count, values, ops.logical_and(finite, ops.logical_not(ops.isnan(values)))))


def _clipped(
    plan: Plan,
    state: State,
    gs: list[Tensor],
    norms: Tensor,
    norm: Scalar,
    index: list[int],
    memory: list[Tensor],
) -> tuple[list[Tensor], Scalar, Scalar]:
    """Gradients after the policies of their groups, whether any was clipped, and the threshold of group 0."""
    result = list(gs)
    clipped, threshold = ops.zeros((), "bool"), ops.full((), float("nan"), plan.dtype)
    for number, group in enumerate(plan.groups):
        mine = [k for k, i in enumerate(index) if _clip_group(plan, i) == number]
        if not mine or group.clip is None or isinstance(group.clip, NoClip):
            continue
        everything = len(mine) == len(index)
        rows = memory[0] if memory and number == 0 else None
        if rows is not None and group.clip.per_parameter:
            rows = ops.stack([rows[index[k]] for k in mine])
        x = Gradients(
            grads=[gs[k] for k in mine],
            params=[state.params[index[k]] for k in mine],
            norms=norms if everything else ops.stack([norms[k] for k in mine]),
            global_norm=norm,
            units=[plan.variables[index[k]].units for k in mine],
            history=rows,
        )
        done = group.clip.clip(x, _hyperparameters(plan, state, number))
        for k, g in zip(mine, done.grads, strict=True):
            result[k] = g
        clipped = ops.logical_or(clipped, done.clipped)
        threshold = ops.cast(done.threshold, plan.dtype) if number == 0 else threshold
    return result, clipped, threshold


def _clip_group(plan: Plan, i: int) -> int:
    """The group whose clipping acts on variable `i`."""
    group = plan.variables[i].group
    return group if plan.groups[group].clip is not None else 0


def _rate(plan: Plan, state: State, schedule_step: Scalar | None) -> Scalar:
    rate = ops.cast(state.rate, plan.dtype)
    if plan.schedule is None:
        return rate
    return rate * ops.cast(plan.schedule(state.updates if schedule_step is None else schedule_step), plan.dtype)


def _hyperparameters(plan: Plan, state: State, number: int) -> Scalars:
    """The hyperparameters of a group by name."""
    group = plan.groups[number]
    packed = ops.cast(state.hyperparameters, plan.dtype)
    return Scalars(**{name: packed[group.offset + k] for k, name in enumerate(group.hyperparameters)})


def _shared(plan: Plan, state: State) -> Scalars:
    """The hyperparameters that no group owns."""
    packed, n = ops.cast(state.hyperparameters, plan.dtype), len(plan.shared)
    size = packed.shape[0]
    return Scalars(**{name: packed[size - n + k] for k, name in enumerate(plan.shared)})


def _prepared_scalars(plan: Plan, state: State, rate: Scalar, ok: Scalar) -> dict[tuple[int, int], Scalars]:
    """For each group and time of joining: rate, decay, hyperparameters and what the rule derives from them;
    frozen if this update is skipped."""
    prepared = {}
    for number, joined in dict.fromkeys((v.group, v.joined) for v in plan.variables):
        rule, s = plan.groups[number].rule, _hyperparameters(plan, state, number)
        decay = getattr(s, "weight_decay", None)
        if decay is not None:
            modes = {"decoupled": rate, "independent": rate / plan.peak, "l2": None}
            factor = modes[plan.weight_decay_mode]
            decay = None if factor is None else factor * decay
        s = rule.prepare(s.replace(rate=rate, decay=decay), ops.cast(state.updates + (1 - joined), plan.dtype))
        prepared[number, joined] = _frozen_unless(ok, s, rule)
    return prepared


def _frozen_unless(go: Scalar, s: Scalars, rule: UpdateRule) -> Scalars:
    """`s`, or where `go` is false the values that change neither weights nor state."""
    neutral = {k: x for k, x in rule.neutral.items() if getattr(s, k, None) is not None}
    return s.replace(**{k: ops.where(go, getattr(s, k), ops.full_like(getattr(s, k), x)) for k, x in neutral.items()})


def _updated(
    plan: Plan, state: State, i: int, g: Tensor, s: Scalars, go: Scalar
) -> tuple[Tensor, list[Tensor], Tensor]:
    """New value and slots of variable `i`, and how much it changed. Unless `go`, `s` is frozen."""
    v, old = plan.variables[i], state.params[i]
    rule, decays = plan.groups[v.group].rule, v.decays and hasattr(s, "weight_decay")
    s = Scalars(**{k: None if x is None else ops.cast(x, v.dtype) for k, x in vars(s).items()})
    if v.rate != 1.0:
        s = s.replace(rate=s.rate * v.rate, decay=None if s.decay is None else s.decay * v.rate)
    p = ops.cast(old, v.dtype)

    def apply() -> tuple[Tensor, tuple[Tensor, ...]]:
        penalised = g + s.weight_decay * p if decays and plan.weight_decay_mode == "l2" else g
        return rule.update(penalised, p, tuple(state.slots[i]), s if decays else s.replace(decay=None))

    call = apply if plan.fused else backend.compiled(apply)
    delta, slots = call()
    new = ops.where(go, p + delta, p)  # a delta of 0 would make -0 a 0
    if v.constraint is not None:
        new = ops.where(go, v.constraint(new), p)
        delta = new - p
    return ops.cast(new, old.dtype), list(slots), delta


def _averaged(plan: Plan, state: State, params: list[Tensor], ok: Scalar) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Exponential moving averages of the new weights (Polyak & Juditsky 1992); the first is the weights themselves."""
    if not any(state.averages):
        return params, state.averages
    usual, weights = _shared(plan, state).one_minus_ema_momentum, {}
    for joined in dict.fromkeys(v.joined for v in plan.variables):
        weight = ops.where(state.updates == joined, ops.ones_like(usual), usual)
        weights[joined] = ops.where(ok, weight, ops.zeros_like(weight))
    every = plan.ema_overwrite_frequency
    due = None
    if every:
        due = ops.logical_and(ok, (state.updates + 1) % ops.cast(every, state.updates.dtype) == 0)
    params, averages = list(params), list(state.averages)
    for i, row in enumerate(state.averages):
        if row:
            p = ops.cast(params[i], row[0].dtype)
            average = row[0] + ops.cast(weights[plan.variables[i].joined], p.dtype) * (p - row[0])
            averages[i] = [average]
            if due is not None:
                params[i] = ops.cast(ops.where(due, average, p), params[i].dtype)
    return params, averages


def _measured(plan: Plan, state: State, changes: dict[int, Tensor]) -> list[Scalar]:
    """Norm of the parameters, norm of their change, and the penalty that weight decay amounts to."""
    zero = ops.zeros((), plan.dtype)
    total, penalty = zero, zero
    for p, v in zip(state.params, plan.variables, strict=True):
        if not v.overwrite:
            square = ops.cast(backend.sum_of_squares(ops.cast(p, v.dtype)), plan.dtype)
            total = total + square
            if v.decays:
                penalty = penalty + getattr(_hyperparameters(plan, state, v.group), "weight_decay", zero) * square
    moved = [ops.cast(backend.sum_of_squares(d), plan.dtype) for d in changes.values()]
    return [ops.sqrt(total), ops.sqrt(sum(moved, zero)), 0.5 * penalty]


def _counted(state: State, **events: Scalar) -> Tensor:
    """Counters with those raised whose event (a boolean) happened."""
    no = ops.zeros((), "bool")
    return state.counters + ops.cast(ops.stack([events.get(name, no) for name in COUNTERS]), state.counters.dtype)


def _logged(state: State, row: Tensor) -> Tensor:
    """The ring of statistics with a row over the oldest."""
    attempts = ops.cast(state.updates, "int32") + ops.cast(state.counters[COUNTERS.index("skipped")], "int32")
    here = ops.arange(STATISTICS_HISTORY, dtype="int32") == attempts % STATISTICS_HISTORY
    return ops.where(here[:, None], row[None, :], state.statistics)


def _scattered(norms: list[Scalar], index: list[int], size: int, dtype: str) -> Tensor:
    """A vector with `norms` at positions `index`, inf for nan, and nan elsewhere."""
    at = dict(zip(index, norms, strict=True))
    nan = ops.full((), float("nan"), dtype)
    vector, absent = ops.stack([at.get(i, nan) for i in range(size)]), ops.array([i not in at for i in range(size)])
    return ops.where(ops.logical_or(absent, ops.isfinite(vector)), vector, ops.full_like(vector, float("inf")))

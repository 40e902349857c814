"""The one data flow of an update: accumulate -> (sum over replicas) -> measure -> clip -> rule -> statistics.

Pure functions of tensors. What is fixed for a compiled step is in a `Plan`; everything that changes is in a
`State`. The optimizer holds a `State` of variables, and the backend turns it into a `State` of tensors and back.

A stage that touches whole variables (`_norm`, `_changed`, …) is a function of one of them, and an `Execution`
applies it to all; what lies between (`_decided`, `_recorded`) works on scalars.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, history, probes
from capibara_keras.clip import NoClip, Norms
from capibara_keras.execution import INLINE, Execution, Item, Row
from capibara_keras.plan import Plan, VariablePlan
from capibara_keras.rules import UpdateRule
from capibara_keras.types import Scalar, Scalars, Tensor, Variable

__all__ = [
    "COUNTERS",
    "STATISTICS",
    "State",
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
    "loss",
)
"""The entries of a row of `State.statistics`."""

VARIABLE_NORMS = ("gradient_norm", "parameter_norm", "update_norm")
"""The last axis of `State.variable_norms`."""

COUNTERS = ("micro_steps", "skipped", "clipped", "spikes", "dropped")
"""The entries of `State.counters`: micro-batches seen, updates skipped (for whatever reason), updates clipped,
updates skipped as spikes, micro-batches dropped."""

STATISTICS_HISTORY, VARIABLE_HISTORY = 256, 64
"""Updates whose statistics, and whose norms by variable, are kept, so that reading every so often misses none."""

MEASURED_AT_FIRST = 20
"""Updates at the start that are all measured, where anything is: that is when a rate that is too high shows."""

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
        losses: sum of the losses that were observed since the last update, and how many these are.
        probes: where a monitor asks: for each unit the last update in which it had a gradient; `probes.ENTRIES` of
            each variable, and the sums of `probes.NUMBERS`, both as of the last measured update.
        variable_norms: for each variable a ring of the last `VARIABLE_HISTORY` updates, see `VARIABLE_NORMS`: L2 norms
            of the gradient before clipping (nan where there was none, inf where it was not finite), and of parameter
            and change (nan where not measured).
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
    variable_norms: Tensor
    losses: Tensor
    probes: list[Tensor]

    @property
    def rows(self) -> list[Row]:
        """What belongs to each variable."""
        return [Row(*parts) for parts in zip(self.params, self.slots, self.averages, self.accumulators, strict=True)]

    def with_rows(self, rows: Mapping[int, Row]) -> State:
        """A state in which some variables have other rows."""
        merged = dict(enumerate(self.rows)) | dict(rows)
        columns = [list(column) for column in zip(*merged.values(), strict=True)]
        return self._replace(**dict(zip(("params", "slots", "averages", "accumulators"), columns, strict=True)))

    def live(self, native: Callable[[Variable], Any], read: Callable[[Variable], Tensor]) -> State:
        """Of a state of variables: the rows as the backend's own variables, the rest as their values."""
        rows = {i: keras.tree.map_structure(native, row) for i, row in enumerate(self.rows)}
        return keras.tree.map_structure(read, self.rest).with_rows(rows)

    @property
    def rest(self) -> State:
        """What does not belong to one variable."""
        return self._replace(params=[], slots=[], averages=[], accumulators=[])


class Part(NamedTuple):
    """What a stage asks about a variable, beside its row.

    Attributes:
        plan: without the path, so that variables that are treated alike are equal.
        has_gradient: whether there is one in this update.
    """

    plan: VariablePlan
    has_gradient: bool


class Decision(NamedTuple):
    """What an update does, in scalars: the result of measuring the gradients.

    Attributes:
        ok: whether it happens.
        norm: global gradient norm.
        spike: whether it is skipped as a spike.
        rate: learning rate.
        limits: for each group what its clip policy decided; `None` where nothing is clipped.
        clipped, threshold: see `capibara_keras.clip.Limits`.
        scalars: what the rules need, see `_prepared_scalars`.
        averaging: by time of joining, the weight of the new value in the average.
        overwrites: whether averages replace the weights; `None` for never.
        norms, spikes: of the new state.
    """

    ok: Scalar
    norm: Scalar
    spike: Scalar
    rate: Scalar
    limits: list[Tensor | None]
    clipped: Scalar
    threshold: Scalar
    scalars: dict[str, dict[str, Scalar]]
    averaging: dict[str, Scalar]
    overwrites: Scalar | None
    norms: list[Tensor]
    spikes: list[Tensor]


# Accumulation ----------------------------------------------------------------------------------------------


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
    items = _items(plan, state, range(len(grads)), grads)
    weight = ops.ones_like(total) if weight is None else ops.cast(weight, total.dtype)
    keep = ops.ones((), "bool") if keep is None else keep
    shared: dict[str, Any] = {"weight": weight, "keep": keep, "window": list(state.window)}
    norms, clipped, finite = state.norms, ops.zeros((), "bool"), ops.ones((), "bool")
    if plan.clip_micro_batches:
        index = [i for i in present if not plan.variables[i].overwrite]
        _, (vector,) = run.each(partial(_micro_norm, plan), [items[i] for i in index], shared)
        norm = ops.sqrt(ops.sum(vector * vector))
        finite = ops.isfinite(norm)
        norms = _remembered(plan, state.rest, vector, norm, index, finite)
        limits, clipped, _ = _limits(plan, state.rest, vector, norm, index, norms)
        items, shared = _with_limits(plan, items, index, limits), shared | {"limits": limits, "finite": finite}
    rows, (beyond,) = run.each(partial(_added, plan), [items[i] for i in present], shared)
    clipped = ops.logical_and(ops.logical_or(clipped, ops.any(beyond > 0)), finite)
    arrived = ops.array([g is not None for g in grads], state.contributed[0].dtype)
    one = ops.cast(keep, count.dtype)
    return state.with_rows(dict(zip(present, rows, strict=True)))._replace(
        window=[count + one, full, total + ops.where(keep, weight, ops.zeros_like(weight))],
        contributed=[state.contributed[0] + one * arrived],
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


def _added(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> tuple[Row, tuple[Scalar]]:
    """The row with the micro-batch's gradient in its accumulator, and whether that was clipped."""
    (old,), g = row.accumulator, own["gradient"]
    beyond = ops.zeros((), "bool")
    if "limits" in shared and not part.plan.overwrite:
        g = _micro_gradient(plan, part, g, shared)
        bad = ops.full_like(g, float("nan"))  # clipping by value would make an infinite entry a finite one
        done, beyond = _clip(plan, part, g, row.param, own, shared["limits"])
        g = done if plan.nonfinite == "propagate" else ops.where(shared["finite"], done, bad)
    g = ops.cast(g, old.dtype)
    new = ops.maximum(old, g) if part.plan.overwrite else old + ops.cast(shared["weight"], old.dtype) * g
    new = ops.where(shared["keep"], new, old) if plan.nonfinite == "drop_micro_batch" else new
    return row._replace(accumulator=[new]), (ops.cast(beyond, plan.dtype),)


def _micro_norm(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> tuple[Row, tuple[Scalar]]:
    g = _micro_gradient(plan, part, own["gradient"], shared)
    return row, (ops.cast(ops.sqrt(backend.sum_of_squares(g)), plan.dtype),)


def _micro_gradient(plan: Plan, part: Part, g: Tensor, shared: Any) -> Tensor:
    """The gradient of a micro-batch at its true scale."""
    arrived = 1.0 if plan.loss_scale is None else plan.loss_scale
    factor = ops.cast(shared["window"][1], plan.dtype) / arrived if plan.divided else 1.0 / arrived
    g = ops.cast(g, part.plan.dtype)
    return g * ops.cast(factor, g.dtype)


# Update ----------------------------------------------------------------------------------------------------


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
    items = _items(plan, state, range(len(plan.variables)), grads, uncertain)
    index = [i for i, item in enumerate(items) if item.what.has_gradient and not item.what.plan.overwrite]
    shared: dict[str, Any] = {"window": list(state.window)}

    # Measure
    _, norms = run.each(partial(_norm, plan), [items[i] for i in index], shared)
    vector = norms[0] if norms else ops.zeros((0,), plan.dtype)

    # Clip
    decision = run.once(partial(_decided, plan, index), state.rest, vector, _gathered(plan, state), schedule_step)

    if state.probes:
        biases = [_arrived(items[i]) if items[i].what.has_gradient else None for i in plan.watched]
        last_active = run.once(partial(_last_active, plan), state.rest, biases)

    # Rule
    shared |= {"decision": decision}
    items = _with_limits(plan, items, index, decision.limits)

    def changed(measured: bool) -> tuple[list[Row], list[Tensor]]:
        return run.each(partial(_changed, plan, measured), items, shared)

    if measure or plan.statistics_every in (None, 1):
        rows, numbers = changed(measure or plan.statistics_every == 1)
    else:
        attempts = _attempts(state)
        due = ops.logical_or(attempts < MEASURED_AT_FIRST, attempts % plan.statistics_every == 0)
        rows, numbers = run.choose(due, lambda: changed(True), lambda: changed(False))

    # Statistics
    recorded = run.once(partial(_recorded, plan, index), state.rest, decision, vector, numbers)
    if state.probes:
        recorded["probes"] = [last_active, *recorded["probes"]]
    return state.with_rows(dict(enumerate(rows)))._replace(**recorded)


def _items(
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


def _with_limits(plan: Plan, items: list[Item], index: Sequence[int], limits: Sequence[Tensor | None]) -> list[Item]:
    """Items that have their own limit where a policy decides for each variable by itself."""
    items = list(items)
    for number, limit in enumerate(limits):
        if limit is not None and len(limit.shape):
            for k, i in enumerate(_limited(plan, index, number)):
                items[i] = items[i]._replace(own={**items[i].own, "limit": limit[k]})
    return items


def _gradient(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> Tensor:
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


# Measure and clip ------------------------------------------------------------------------------------------


def _norm(plan: Plan, part: Part, row: Row, own: Mapping[str, Tensor], shared: Any) -> tuple[Row, tuple[Scalar]]:
    g = _gradient(plan, part, row, own, shared)
    return row, (ops.cast(ops.sqrt(backend.sum_of_squares(g)), plan.dtype),)


def _decided(
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
        memory = _remembered(plan, rest, norms, norm, index, finite)
        safe, safe_norm = (ops.where(ok, x, ops.zeros_like(x)) for x in (norms, norm))
        limits, clipped, threshold = _limits(plan, rest, safe, safe_norm, index, memory)
    rate = _rate(plan, rest, schedule_step)
    averaging, overwrites = _averaging(plan, rest, ok)
    scalars = _prepared_scalars(plan, rest, rate, ok, gathered)
    return Decision(ok, norm, spike, rate, limits, clipped, threshold, scalars, averaging, overwrites, memory, spikes)


def _spiked(plan: Plan, rest: State, norm: Scalar, finite: Scalar) -> tuple[Scalar, list[Tensor]]:
    """Whether the norm is far above the recent ones, and these with it. A spike is remembered too, so that
    a lasting change of level is accepted after a while."""
    if not rest.spikes:
        return ops.zeros((), "bool"), []
    ring, count = rest.spikes
    mean, deviation, n = history.spread(ring)
    far = norm > mean + _shared(plan, rest).spike_sigma * deviation
    spike = ops.logical_and(ops.logical_and(far, n >= SPIKE_MINIMUM), finite)
    return spike, list(history.push(ring, count, norm[None], finite))


def _remembered(
    plan: Plan, rest: State, norms: Tensor, norm: Scalar, index: Sequence[int], finite: Scalar
) -> list[Tensor]:
    """The clip policy's history with the norms of this update."""
    if not rest.norms:
        return []
    ring, count = rest.norms
    policy = plan.groups[0].clip
    if policy is None or not policy.per_parameter:
        return list(history.push(ring, count, norm[None], finite))
    values = _scattered(norms, index, len(plan.variables))
    return list(history.push(ring, count, values, ops.logical_and(finite, ops.logical_not(ops.isnan(values)))))


def _limits(
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
        decided = group.clip.limits(Norms(each, norm, rows), _hyperparameters(plan, rest, number))
        limits[number], clipped = decided.limit, ops.logical_or(clipped, decided.clipped)
        threshold = ops.cast(decided.threshold, plan.dtype) if number == 0 else threshold
    return limits, clipped, threshold


def _limited(plan: Plan, index: Sequence[int], number: int) -> list[int]:
    """The variables that the clip policy of a group acts on."""
    return [i for i in index if _clip_group(plan, plan.variables[i]) == number]


def _clip_group(plan: Plan, v: VariablePlan) -> int:
    """The group whose clipping acts on a variable."""
    return v.group if plan.groups[v.group].clip is not None else 0


def _clip(
    plan: Plan, part: Part, g: Tensor, p: Tensor, own: Mapping[str, Tensor], limits: Sequence[Tensor | None]
) -> tuple[Tensor, Scalar]:
    """The clipped gradient, and whether that shows only here."""
    number = _clip_group(plan, part.plan)
    policy, limit = plan.groups[number].clip, limits[number]
    if policy is None or limit is None:
        return g, ops.zeros((), "bool")
    return policy.clip(g, p, ops.cast(own.get("limit", limit), g.dtype), part.plan.units)


# Rule ------------------------------------------------------------------------------------------------------


def _rate(plan: Plan, rest: State, schedule_step: Scalar | None) -> Scalar:
    rate = ops.cast(rest.rate, plan.dtype)
    if plan.schedule is None:
        return rate
    return rate * ops.cast(plan.schedule(rest.updates if schedule_step is None else schedule_step), plan.dtype)


def _hyperparameters(plan: Plan, rest: State, number: int) -> Scalars:
    """The hyperparameters of a group by name."""
    group = plan.groups[number]
    packed = ops.cast(rest.hyperparameters, plan.dtype)
    return Scalars(**{name: packed[group.offset + k] for k, name in enumerate(group.hyperparameters)})


def _shared(plan: Plan, rest: State) -> Scalars:
    """The hyperparameters that no group owns."""
    packed, n = ops.cast(rest.hyperparameters, plan.dtype), len(plan.shared)
    size = packed.shape[0]
    return Scalars(**{name: packed[size - n + k] for k, name in enumerate(plan.shared)})


def _gathered(plan: Plan, state: State) -> dict[str, dict[str, Tensor]]:
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
        rule, s = plan.groups[number].rule, _hyperparameters(plan, rest, number)
        s = s.replace(**gathered.get(str(number), {}))
        decay = getattr(s, "weight_decay", None)
        if decay is not None:
            relative = rate / plan.peak
            modes = {"decoupled": rate, "independent": relative, "corrected": rate * relative, "l2": None}
            factor = modes[plan.weight_decay_mode]
            decay = None if factor is None else factor * decay
        s = rule.prepare(s.replace(rate=rate, decay=decay), ops.cast(rest.updates + (1 - joined), plan.dtype))
        prepared[_key(number, joined)] = vars(_frozen_unless(ok, s, rule))
    return prepared


def _key(group: int, joined: int) -> str:
    return f"{group}/{joined}"


def _frozen_unless(go: Scalar, s: Scalars, rule: UpdateRule) -> Scalars:
    """`s`, or where `go` is false the values that change neither weights nor state."""
    neutral = {k: x for k, x in rule.neutral.items() if getattr(s, k, None) is not None}
    return s.replace(**{k: ops.where(go, getattr(s, k), ops.full_like(getattr(s, k), x)) for k, x in neutral.items()})


def _changed(
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
            g = _gradient(plan, part, row, own, shared)
            g = ops.where(decision.ok, g, ops.zeros_like(g))
            g, beyond = _clip(plan, part, g, old, own, decision.limits)
            s = Scalars(**decision.scalars[_key(v.group, v.joined)])
            s = _frozen_unless(go, s, plan.groups[v.group].rule) if "contributed" in own else s
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
        measured = tuple(_finite_or_infinite(ops.cast(x, plan.dtype)) for x in (p_norm, d_norm))
    return row, (ops.cast(beyond, plan.dtype), *measured, *(probed if plan.statistics_every else ()))


def _probed(plan: Plan, part: Part, row: Row, g: Tensor, own: Mapping[str, Tensor], s: Scalars) -> list[Scalar]:
    """`probes.ENTRIES` of the gradient as it arrived, `probes.NUMBERS` of the one that the rule sees."""
    rule, unknown = plan.groups[part.plan.group].rule, ops.full((), float("nan"), plan.dtype)
    arrived = ops.cast(_arrived(Item(part, row, own)), part.plan.dtype)
    found = list(probes.entries(arrived)) if plan.half_precision else [unknown] * len(probes.ENTRIES)
    s = Scalars(**{k: None if x is None else ops.cast(x, part.plan.dtype) for k, x in vars(s).items()})
    average = getattr(rule, "average", None)
    found += probes.alignment(g, average(tuple(row.slots), s) if average else None)
    return [ops.cast(x, plan.dtype) for x in found]


def _arrived(item: Item) -> Tensor:
    """The gradient, or the sum over the window, without any factor."""
    return item.own["gradient"] if "gradient" in item.own else ops.convert_to_tensor(item.row.accumulator[0])


def _last_active(plan: Plan, rest: State, biases: Sequence[Tensor | None]) -> Tensor:
    return probes.active(rest.probes[0], biases, plan.unit_sizes, _attempts(rest) + 1)


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


def _averaging(plan: Plan, rest: State, ok: Scalar) -> tuple[dict[str, Scalar], Scalar | None]:
    """By time of joining, the weight of the new value in the average: the first average is the value itself. And
    whether averages replace the weights now."""
    if "one_minus_ema_momentum" not in plan.shared:
        return {}, None
    usual, weights = _shared(plan, rest).one_minus_ema_momentum, {}
    for joined in dict.fromkeys(v.joined for v in plan.variables):
        weight = ops.where(rest.updates == joined, ops.ones_like(usual), usual)
        weights[str(joined)] = ops.where(ok, weight, ops.zeros_like(weight))
    every = plan.ema_overwrite_frequency
    if not every:
        return weights, None
    return weights, ops.logical_and(ok, (rest.updates + 1) % ops.cast(every, rest.updates.dtype) == 0)


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


# Statistics ------------------------------------------------------------------------------------------------


def _recorded(
    plan: Plan, index: Sequence[int], rest: State, decision: Decision, norms: Tensor, numbers: Sequence[Tensor]
) -> dict[str, Any]:
    """The entries of the state that are no variable's own, after this update.

    Args:
        norms: of the gradients at `index`.
        numbers: what `_changed` returned, for all variables.
    """
    beyond, parameter_norms, update_norms, *probed = numbers
    ok, clipped = decision.ok, ops.logical_or(decision.clipped, ops.any(beyond > 0))
    skipped = ops.logical_not(ok)
    known = ops.array([not v.overwrite for v in plan.variables])
    squares = ops.where(known, ops.square(parameter_norms), ops.zeros_like(parameter_norms))
    moved = ops.where(known, ops.square(update_norms), ops.zeros_like(update_norms))
    measured = [ops.sqrt(ops.sum(squares)), ops.sqrt(ops.sum(moved)), 0.5 * _penalty(plan, rest, squares)]
    flags = [ops.cast(flag, plan.dtype) for flag in (clipped, skipped)]
    gradient_norms = _scattered(_finite_or_infinite(norms), index, len(plan.variables))
    norm, loss = _finite_or_infinite(decision.norm), ops.cast(_mean_loss(rest), plan.dtype)
    row = ops.stack([decision.rate, norm, decision.threshold, *flags, *measured, loss])
    by_variable = ops.stack([gradient_norms, parameter_norms, update_norms], axis=1)
    arrived = ops.zeros((), "bool") if rest.window else ops.ones((), "bool")
    recorded: dict[str, Any] = {
        "updates": rest.updates + ops.cast(ok, rest.updates.dtype),
        "counters": _counted(rest, micro_steps=arrived, skipped=skipped, clipped=clipped, spikes=decision.spike),
        "statistics": _logged(rest.statistics, _attempts(rest), row[None, :], axis=0),
        "variable_norms": _logged(rest.variable_norms, _attempts(rest), by_variable[:, None, :], axis=1),
        "norms": decision.norms,
        "spikes": decision.spikes,
        "losses": ops.zeros_like(rest.losses),
    }
    if rest.probes:
        recorded["probes"] = _latest_probes(rest, probed)
    if rest.window:
        count, full, total = rest.window
        recorded["window"] = [ops.zeros_like(count), full, ops.zeros_like(total)]
        recorded["contributed"] = [ops.zeros_like(c) for c in rest.contributed]
    return recorded


def _mean_loss(rest: State) -> Scalar:
    """Of the losses that were observed since the last update: nan if none was, inf if it is not finite."""
    total, count = rest.losses[0], rest.losses[1]
    mean = _finite_or_infinite(total / ops.maximum(count, 1))
    return ops.where(count > 0, mean, ops.full_like(mean, float("nan")))


def _finite_or_infinite(x: Tensor) -> Tensor:
    """inf where x is not finite: nan says that a number is not known."""
    return ops.where(ops.isfinite(x), x, ops.full_like(x, float("inf")))


def _latest_probes(rest: State, probed: Sequence[Tensor]) -> list[Tensor]:
    """`probes.ENTRIES` by variable and the sums of `probes.NUMBERS`; where nothing was measured, those of before."""
    _, entries, numbers = rest.probes
    n = len(probes.ENTRIES)
    now = ops.stack(list(probed[:n]), axis=1)
    sums = [ops.sum(ops.where(ops.isnan(x), ops.zeros_like(x), x)) for x in probed[n:]]
    new = ops.stack(sums)
    return [ops.where(ops.isnan(now), entries, now), ops.where(new[-1] > 0, new, numbers)]


def _penalty(plan: Plan, rest: State, squares: Tensor) -> Scalar:
    """Sum over the decayed variables of weight_decay ||p||²."""
    total = ops.zeros((), plan.dtype)
    for number, group in enumerate(plan.groups):
        decayed = np.array([v.decays and v.group == number for v in plan.variables])
        if "weight_decay" in group.hyperparameters and decayed.any():
            decay = _hyperparameters(plan, rest, number).weight_decay
            total = total + decay * ops.sum(ops.where(decayed, squares, ops.zeros_like(squares)))
    return total


def _attempts(state: State) -> Scalar:
    """Updates so far, skipped ones included."""
    return ops.cast(state.updates, "int32") + ops.cast(state.counters[COUNTERS.index("skipped")], "int32")


def _counted(state: State, **events: Scalar) -> Tensor:
    """Counters with those raised whose event (a boolean) happened."""
    no = ops.zeros((), "bool")
    return state.counters + ops.cast(ops.stack([events.get(name, no) for name in COUNTERS]), state.counters.dtype)


def _logged(ring: Tensor, count: Scalar, entry: Tensor, axis: int) -> Tensor:
    """The ring with an entry (of length 1 along `axis`) over the oldest."""
    length = ring.shape[axis]
    here = ops.arange(length, dtype="int32") == count % length
    shape = [length if i == axis else 1 for i in range(len(ring.shape))]
    return ops.where(ops.reshape(here, shape), entry, ring)


def _scattered(values: Tensor, index: Sequence[int], size: int) -> Tensor:
    """A vector of `size` entries with `values` at positions `index`, and nan elsewhere."""
    if list(index) == list(range(size)):
        return values
    places = np.full(size, len(index))
    places[list(index)] = np.arange(len(index))
    return ops.take(ops.append(values, ops.full((1,), float("nan"), values.dtype)), places, axis=0)

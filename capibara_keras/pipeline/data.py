"""What an update reads, writes and decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from capibara_keras.execution import Row
from capibara_keras.plan import Plan, VariablePlan
from capibara_keras.types import Scalar, Scalars, Tensor, Variable

__all__ = [
    "COUNTERS",
    "Decision",
    "Part",
    "STATISTICS",
    "STATISTICS_HISTORY",
    "State",
    "VARIABLE_HISTORY",
    "VARIABLE_NORMS",
    "attempts_so_far",
    "counted",
    "finite_or_infinite",
    "hyperparameters_of",
    "scattered",
    "shared_numbers",
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


STATISTICS_HISTORY = 256
"""Updates whose statistics are kept, so that reading every so often misses none."""

VARIABLE_HISTORY = 64
"""Updates whose norms by variable are kept."""


class State(NamedTuple):
    """All that an update reads and writes. Lists have one entry per variable; optional parts are empty lists.

    Attributes:
        params: the model's variables.
        slots: the rule's state, a list per variable (empty for one that is overwritten with its gradient).
        averages: exponential moving averages of `params`.
        accumulators: sums of gradients of the current window.
        window: with accumulation: micro-batches in the window, how many fill it, and the sum of their weights.
        contributed: with accumulation: one integer vector, how many of them had a gradient, per variable.
        evaluating: for an algorithm with two points: whether `params` hold the one to be evaluated.
        norms: for a clip policy with memory: a ring of norms and the counts of its rows.
        spikes: for spike detection: a ring of global norms and its count.
        updates: updates so far.
        rate: the learning rate, or with a schedule its multiplier.
        hyperparameters: packed vector, see `Plan`.
        counters: packed integer vector, see `COUNTERS`.
        statistics: ring of the last `STATISTICS_HISTORY` updates (skipped ones included), a row each, see `STATISTICS`.
        losses: sum of the losses that were observed since the last update, and how many these are.
        probes: where a monitor asks: for each unit the last update in which it had a gradient; `probes.ENTRIES` of
            each variable, and the sums of `probes.NUMBERS`, both as of the last measured update; and
            `probes.MICRO_BATCHES`.
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
    evaluating: list[Tensor]
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
        scalars: what the rules need, see `decision._prepared_scalars`.
        averaging: by time of joining, the weight of the new value in the average.
        overwrites: whether averages replace the weights; `None` for never.
        returns: whether the variables hold the point to be evaluated, and go back first; `None` for never.
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
    returns: Scalar | None
    norms: list[Tensor]
    spikes: list[Tensor]


def attempts_so_far(state: State) -> Scalar:
    """Updates so far, skipped ones included."""
    return ops.cast(state.updates, "int32") + ops.cast(state.counters[COUNTERS.index("skipped")], "int32")


def counted(state: State, **events: Scalar) -> Tensor:
    """Counters with those raised whose event (a boolean) happened."""
    no = ops.zeros((), "bool")
    return state.counters + ops.cast(ops.stack([events.get(name, no) for name in COUNTERS]), state.counters.dtype)


def scattered(values: Tensor, index: Sequence[int], size: int) -> Tensor:
    """A vector of `size` entries with `values` at positions `index`, and nan elsewhere."""
    if list(index) == list(range(size)):
        return values
    places = np.full(size, len(index))
    places[list(index)] = np.arange(len(index))
    return ops.take(ops.append(values, ops.full((1,), float("nan"), values.dtype)), places, axis=0)


def finite_or_infinite(x: Tensor) -> Tensor:
    """inf where x is not finite: nan says that a number is not known."""
    return ops.where(ops.isfinite(x), x, ops.full_like(x, float("inf")))


def hyperparameters_of(plan: Plan, rest: State, number: int) -> Scalars:
    """The hyperparameters of a group by name."""
    group = plan.groups[number]
    packed = ops.cast(rest.hyperparameters, plan.dtype)
    return Scalars(**{name: packed[group.offset + k] for k, name in enumerate(group.hyperparameters)})


def shared_numbers(plan: Plan, rest: State) -> Scalars:
    """The hyperparameters that no group owns."""
    packed, n = ops.cast(rest.hyperparameters, plan.dtype), len(plan.shared)
    size = packed.shape[0]
    return Scalars(**{name: packed[size - n + k] for k, name in enumerate(plan.shared)})

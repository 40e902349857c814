"""The variables that hold an optimizer's state: created, extended, listed for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, pipeline, probes
from capibara_keras.config import OptimizerConfig
from capibara_keras.pipeline import State
from capibara_keras.rules import Slot, UpdateRule
from capibara_keras.types import Tensor, Variable

__all__ = ["Row", "StateVariables", "compute_dtype", "overwrites", "path_of", "slots_of"]


class Row(NamedTuple):
    """The state that belongs to one variable of the model.

    Attributes:
        path: the variable's, with a number appended where two variables share one.
        slots: (name, state variable) pairs of the rule.
        average, accumulator: `None` where not kept.
        joined: updates that the optimizer had seen when the variable came in.
    """

    path: str
    slots: dict[str, Variable]
    average: Variable | None = None
    accumulator: Variable | None = None
    joined: int = 0


class StateVariables:
    """Creates the state of an optimizer, and extends it when variables or options come in later.

    Args:
        owner: the Keras optimizer; its tracked variables are what checkpoints hold.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.rows: dict[Any, Row] = {}
        self.untracked: list[Variable] = []
        self.state: State | None = None
        self.keys: list[Any] = []
        self.each = False

    def assemble(
        self, configuration: OptimizerConfig, variables: Sequence[Variable], groups: Sequence[int], rate: Variable
    ) -> State:
        """The state for `variables` as the configuration wants it; what exists already is kept.

        Args:
            groups: the number of each variable's group.
            rate: the learning rate or its multiplier.
        """
        keys = [self.owner._var_key(v) for v in variables]
        for key, variable, group in zip(keys, variables, groups, strict=True):
            self.rows[key] = self._row(configuration, self.rows.get(key), variable, group)
        rows, size = [self.rows[key] for key in keys], len(variables)
        accumulating = configuration.accumulates
        old, dtype = self.state, scalar_dtype()
        places = [self.keys.index(key) if key in self.keys else None for key in keys]  # of vectors by variable
        memory, each = configuration.clip.history_length, configuration.clip.per_parameter
        height, rows_of = (size, places) if each else (1, [0])
        past = old.norms if old and self.each == each else []
        self._dropped(old.norms if old and not past else [])
        self.keys, self.each = keys, each
        self.untracked.clear()
        self.state = State(
            params=list(variables),
            slots=[list(row.slots.values()) for row in rows],
            averages=[[row.average] if row.average is not None else [] for row in rows],
            accumulators=[[row.accumulator] if row.accumulator is not None and accumulating else [] for row in rows],
            window=[
                old.window[0] if old and old.window else self._vector("micro_step", (), "int"),
                self._untracked("accumulation_steps", configuration.accumulation_steps, "int"),
                old.window[2] if old and old.window else self._vector("window_weight", (), dtype),
            ]
            if accumulating
            else self._dropped(old.window[::2] if old else []),
            contributed=[self._resized("contributed", old and old.contributed, (size,), "int", places=places)]
            if accumulating
            else self._dropped(old.contributed if old else []),
            evaluating=(old.evaluating if old and old.evaluating else [self._vector("evaluating", (), "int32")])
            if any(part.rule.two_points for part in configuration.parts)
            else [],
            norms=[
                self._resized("clip_history", past[:1], (height, memory), dtype, _nan, places=rows_of),
                self._resized("clip_history_count", past[1:], (height,), "int", places=rows_of),
            ]
            if memory
            else self._dropped(past),
            spikes=[
                self._resized("spike_history", old and old.spikes[:1], (1, pipeline.SPIKE_HISTORY), dtype, _nan),
                self._resized("spike_history_count", old and old.spikes[1:], (1,), "int"),
            ]
            if configuration.skip_spikes is not None
            else self._dropped(old.spikes if old else []),
            updates=self.owner._iterations,
            rate=rate,
            hyperparameters=self._untracked("hyperparameters", configuration.packed_values, dtype),
            counters=old.counters if old else self._vector("counters", (len(pipeline.COUNTERS),), "int"),
            statistics=old.statistics if old else self._ring("statistics", dtype),
            variable_norms=self._resized(
                "variable_norms",
                old and [old.variable_norms],
                (size, pipeline.VARIABLE_HISTORY, len(pipeline.VARIABLE_NORMS)),
                dtype,
                _nan,
                places=places,
            ),
            losses=old.losses if old else self._vector("losses", (2,), dtype),
            probes=self._probes(configuration, rows, variables, dtype),
        )
        return self.state

    def _probes(
        self, configuration: OptimizerConfig, rows: Sequence[Row], variables: Sequence[Variable], dtype: str
    ) -> list[Variable]:
        """What is looked at for a monitor: it starts afresh with the monitor, so no checkpoint holds it."""
        if configuration.statistics_every is None:
            return []
        units = sum(probes.unit_sizes([row.path for row in rows], [tuple(v.shape) for v in variables]))
        now = 0
        if self.state is not None:
            skipped = ops.convert_to_numpy(self.state.counters)[pipeline.COUNTERS.index("skipped")]
            now = int(ops.convert_to_numpy(self.owner._iterations)) + int(skipped)
        return [
            self._untracked("last_active", np.full(units, now), "int32"),
            self._untracked("gradient_entries", np.full((len(rows), len(probes.ENTRIES)), np.nan), dtype),
            self._untracked("gradient_alignment", np.full(len(probes.NUMBERS), np.nan), dtype),
            self._untracked("micro_batches", np.full(len(probes.MICRO_BATCHES), np.nan), dtype),
        ]

    def set_numbers(self, configuration: OptimizerConfig) -> None:
        """Write the configuration's numbers into their variables."""
        assert self.state is not None
        self.state.hyperparameters.assign(np.array(configuration.packed_values))
        if self.state.window:
            self.state.window[1].assign(configuration.accumulation_steps)

    def inventory(self) -> dict[tuple[str, str], Variable]:
        """State variables by (name, path of the variable they belong to)."""
        state = self.state
        result: dict[tuple[str, str], Variable] = {}
        if state is None:
            return result
        named = {
            "counters": [state.counters],
            "statistics": [state.statistics],
            "variable_norms": [state.variable_norms],
            "losses": [state.losses],
            "micro_step": state.window[:1],
            "window_weight": state.window[2:],
            "contributed": state.contributed,
            "evaluating": state.evaluating,
            "clip_history": state.norms[:1],
            "clip_history_count": state.norms[1:],
            "spike_history": state.spikes[:1],
            "spike_history_count": state.spikes[1:],
        }
        for name, variables in named.items():
            for variable in variables:
                result[name, ""] = variable
        order = {self.rows[key].path: i for i, key in enumerate(self.keys)}  # that of the model, not of coming in
        for row in sorted(self.rows.values(), key=lambda row: order.get(row.path, len(order))):
            result |= {(name, row.path): variable for name, variable in row.slots.items()}
            if row.average is not None:
                result["average", row.path] = row.average
            if row.accumulator is not None:
                result["accumulator", row.path] = row.accumulator
        return result

    @property
    def frozen(self) -> list[str]:
        """Paths of the variables that have state, and are not trained at present."""
        return [row.path for key, row in self.rows.items() if key not in self.keys]

    def join(self, joined: Mapping[str, int]) -> bool:
        """Set when variables came in, by path; whether that is news."""
        before = self.rows
        self.rows = {key: row._replace(joined=joined.get(row.path, 0)) for key, row in before.items()}
        return any(row.joined != before[key].joined for key, row in self.rows.items())

    def _row(self, configuration: OptimizerConfig, row: Row | None, variable: Variable, group: int) -> Row:
        if row is None:
            slots = (
                {}
                if overwrites(variable)
                else {
                    slot.name: self._like(variable, slot.name, slot.shape, slot.dtype, slot.initializer)
                    for slot in slots_of(configuration.parts[group].rule, variable)
                }
            )
            average = self._like(variable, "average") if configuration.use_ema and not overwrites(variable) else None
            joined = 0 if self.state is None else int(ops.convert_to_numpy(self.owner._iterations))
            row = Row(self._unique(path_of(variable)), slots, average, None, joined)
        if configuration.accumulates and row.accumulator is None:
            row = row._replace(accumulator=self._like(variable, "accumulator", per_replica=True))
        return row

    def _unique(self, path: str) -> str:
        taken = {row.path for row in self.rows.values()}
        number = next(n for n in range(1, len(taken) + 2) if (path if n == 1 else f"{path}#{n}") not in taken)
        return path if number == 1 else f"{path}#{number}"

    def _like(
        self,
        variable: Variable,
        name: str,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        initializer: Any = "zeros",
        per_replica: bool = False,
    ) -> Variable:
        """A state variable for a model variable, in its place and layout; one value for all replicas, or one each."""
        own_shape = tuple(variable.shape)
        shape = own_shape if shape is None else shape
        layout = getattr(variable, "_layout", None) if shape == own_shape else None
        if self.owner.shard_state:
            layout = backend.sharded_layout(shape, layout)
        with keras.name_scope(self.owner.name), backend.colocated(variable):
            state = keras.Variable(
                initializer=_initializer(initializer),
                shape=shape,
                dtype=dtype or compute_dtype(variable),
                trainable=False,
                layout=layout,
                name=f"{path_of(variable).replace('/', '_')}_{name}",
                aggregation="sum" if per_replica else "none",
                synchronization="on_read" if per_replica else "auto",
            )
        self.owner._track_variable(state)
        return state

    def _vector(self, name: str, shape: tuple[int, ...], dtype: str, initializer: Any = "zeros") -> Variable:
        return self.owner.add_variable(shape, initializer, dtype, name=name)

    def _ring(self, name: str, dtype: str) -> Variable:
        return self._vector(name, (pipeline.STATISTICS_HISTORY, len(pipeline.STATISTICS)), dtype, _nan)

    def _resized(
        self,
        name: str,
        old: Sequence[Variable] | None,
        shape: tuple[int, ...],
        dtype: str,
        initializer: Any = "zeros",
        *,
        places: Sequence[int | None] | None = None,
    ) -> Variable:
        """The old variable, or a new one where there is none or its shape is another.

        Args:
            places: for each row its place in the old variable, `None` for a new row.
        """
        moved = places is not None and list(places) != list(range(len(places)))
        if old and not moved and tuple(old[0].shape) == shape:
            return old[0]
        new = self._vector(name, shape, dtype, initializer)
        if old and moved and tuple(old[0].shape[1:]) == shape[1:]:
            before, after = ops.convert_to_numpy(old[0]), np.array(ops.convert_to_numpy(new))
            for i, place in enumerate(places or ()):
                after[i] = after[i] if place is None else before[place]
            new.assign(after)
        self._dropped(old or [])
        return new

    def _dropped(self, variables: Sequence[Variable]) -> list[Variable]:
        for variable in variables:
            self.owner._untrack_variable(variable)
        return []

    def _untracked(self, name: str, value: Any, dtype: str) -> Variable:
        """A variable that `optimizer.variables` lists but no checkpoint holds: the constructor's values win."""
        value = np.array(value)
        with keras.name_scope(self.owner.name):
            variable = keras.Variable(
                lambda shape, dtype: ops.convert_to_tensor(value, dtype), value.shape, dtype, trainable=False, name=name
            )
        self.untracked.append(variable)
        return variable


def path_of(variable: Variable) -> str:
    """The path of a Keras variable, or the name of a native one."""
    return str(getattr(variable, "path", None) or variable.name.split(":")[0])


def slots_of(rule: UpdateRule, variable: Variable) -> tuple[Slot, ...]:
    """What a rule keeps for a variable."""
    return rule.slots_for(tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))


def compute_dtype(variable: Variable) -> str:
    """Of the update: the variable's dtype, but float32 for a half-precision one, where moments would stall."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float64" if dtype == "float64" else "float32"


def overwrites(variable: Variable) -> bool:
    """Whether the variable's gradient is its next value."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def scalar_dtype() -> str:
    """Of hyperparameters and statistics."""
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _initializer(value: Any) -> Any:
    """A number stands for a constant."""
    return keras.initializers.Constant(value) if isinstance(value, float) else keras.initializers.get(value)


def _nan(shape: Any, dtype: Any = None) -> Tensor:
    return ops.full(shape, float("nan"), dtype)

"""The variables that hold an optimizer's state: which there are, brought in line, listed for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from capibara_keras import pipeline, probes
from capibara_keras.allocation import Allocation, Spec
from capibara_keras.config import OptimizerConfig
from capibara_keras.pipeline import State
from capibara_keras.types import Variable
from capibara_keras.variables import overwrites, path_of, scalar_dtype, slots_of

__all__ = ["StateVariables", "VariableState"]

NAN = float("nan")


class VariableState(NamedTuple):
    """The state that belongs to one variable of the model.

    Attributes:
        path: the variable's, with a number appended where two variables share one.
        slots: the rule's state variables, by name.
        average, accumulator: `None` where not kept.
        joined: updates that the optimizer had seen when the variable came in.
    """

    path: str
    slots: dict[str, Variable]
    average: Variable | None = None
    accumulator: Variable | None = None
    joined: int = 0


def shared_specs(configuration: OptimizerConfig, places: Sequence[int | None]) -> list[Spec]:
    """The state that belongs to no single variable of the model.

    Args:
        places: for each variable of the model its place in the state so far, `None` for a new one.
    """
    dtype, size, specs = scalar_dtype(), len(places), []
    if configuration.accumulates:
        specs += [Spec("micro_step", (), "int"), Spec("window_weight", (), dtype)]
        specs += [Spec("contributed", (size,), "int", places=places)]
    if any(part.rule.two_points for part in configuration.parts):
        specs += [Spec("evaluating", (), "int32")]
    if configuration.clip.history_length:
        rows: Sequence[int | None] = places if configuration.clip.per_parameter else [0]
        specs += [Spec("clip_history", (len(rows), configuration.clip.history_length), dtype, NAN, rows)]
        specs += [Spec("clip_history_count", (len(rows),), "int", places=rows)]
    if configuration.skip_spikes is not None:
        specs += [Spec("spike_history", (1, pipeline.SPIKE_HISTORY), dtype, NAN)]
        specs += [Spec("spike_history_count", (1,), "int")]
    by_variable = (size, pipeline.VARIABLE_HISTORY, len(pipeline.VARIABLE_NORMS))
    return [
        *specs,
        Spec("counters", (len(pipeline.COUNTERS),), "int"),
        Spec("statistics", (pipeline.STATISTICS_HISTORY, len(pipeline.STATISTICS)), dtype, NAN),
        Spec("variable_norms", by_variable, dtype, NAN, places),
        Spec("losses", (2,), dtype),
    ]


class StateVariables:
    """Creates the state of an optimizer, and extends it when variables or options come in later.

    Args:
        owner: the Keras optimizer; its tracked variables are what checkpoints hold.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.rows: dict[Any, VariableState] = {}
        self.shared: dict[str, Variable] = {}
        self.unsaved: list[Variable] = []
        self.state: State | None = None
        self.keys: list[Any] = []
        self._allocation = Allocation(owner)

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
        rows = [self.rows[key] for key in keys]
        old = self.shared
        specs = shared_specs(configuration, [self.keys.index(key) if key in self.keys else None for key in keys])
        shared = {spec.name: self._allocation.kept(spec, old.get(spec.name)) for spec in specs}
        for name in old.keys() - shared.keys():
            self._allocation.drop(old[name])
        accumulating = configuration.accumulates

        def present(*names: str) -> list[Variable]:
            return [shared[name] for name in names if name in shared]

        def unsaved(name: str, value: Any, dtype: str) -> Variable:
            self.unsaved.append(self._allocation.unsaved(name, value, dtype))
            return self.unsaved[-1]

        self.unsaved.clear()
        steps = [unsaved("accumulation_steps", configuration.accumulation_steps, "int")] if accumulating else []
        numbers = unsaved("hyperparameters", configuration.packed_values, scalar_dtype())
        watched = [unsaved(*probe) for probe in self._probes(configuration, rows, variables)]
        self.keys, self.shared = keys, shared
        self.state = State(
            params=list(variables),
            slots=[list(row.slots.values()) for row in rows],
            averages=[[row.average] if row.average is not None else [] for row in rows],
            accumulators=[[row.accumulator] if row.accumulator is not None and accumulating else [] for row in rows],
            window=[*present("micro_step"), *steps, *present("window_weight")],
            contributed=present("contributed"),
            evaluating=present("evaluating"),
            norms=present("clip_history", "clip_history_count"),
            spikes=present("spike_history", "spike_history_count"),
            updates=self.owner._iterations,
            rate=rate,
            hyperparameters=numbers,
            counters=shared["counters"],
            statistics=shared["statistics"],
            variable_norms=shared["variable_norms"],
            losses=shared["losses"],
            probes=watched,
        )
        return self.state

    def set_numbers(self, configuration: OptimizerConfig) -> None:
        """Write the configuration's numbers into their variables."""
        assert self.state is not None
        self.state.hyperparameters.assign(np.array(configuration.packed_values))
        if self.state.window:
            self.state.window[1].assign(configuration.accumulation_steps)

    def inventory(self) -> dict[tuple[str, str], Variable]:
        """State variables by (name, path of the variable they belong to)."""
        result = {(name, ""): variable for name, variable in self.shared.items()}
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

    def _row(
        self, configuration: OptimizerConfig, row: VariableState | None, variable: Variable, group: int
    ) -> VariableState:
        like = self._allocation.like
        if row is None:
            kept = () if overwrites(variable) else slots_of(configuration.parts[group].rule, variable)
            slots = {slot.name: like(variable, slot.name, slot.shape, slot.dtype, slot.initializer) for slot in kept}
            average = like(variable, "average") if configuration.use_ema and not overwrites(variable) else None
            joined = 0 if self.state is None else int(ops.convert_to_numpy(self.owner._iterations))
            row = VariableState(self._unique(path_of(variable)), slots, average, None, joined)
        if configuration.accumulates and row.accumulator is None:
            row = row._replace(accumulator=like(variable, "accumulator", per_replica=True))
        return row

    def _unique(self, path: str) -> str:
        taken = {row.path for row in self.rows.values()}
        number = next(n for n in range(1, len(taken) + 2) if (path if n == 1 else f"{path}#{n}") not in taken)
        return path if number == 1 else f"{path}#{number}"

    def _probes(
        self, configuration: OptimizerConfig, rows: Sequence[VariableState], variables: Sequence[Variable]
    ) -> list[tuple[str, Any, str]]:
        """What is looked at for a monitor: it starts afresh with the monitor, so no checkpoint holds it."""
        if configuration.statistics_every is None:
            return []
        units, dtype = (
            sum(probes.unit_sizes([row.path for row in rows], [tuple(v.shape) for v in variables])),
            scalar_dtype(),
        )
        now = 0
        if self.state is not None:
            skipped = ops.convert_to_numpy(self.state.counters)[pipeline.COUNTERS.index("skipped")]
            now = int(ops.convert_to_numpy(self.owner._iterations)) + int(skipped)
        return [
            ("last_active", np.full(units, now), "int32"),
            ("gradient_entries", np.full((len(rows), len(probes.ENTRIES)), np.nan), dtype),
            ("gradient_alignment", np.full(len(probes.NUMBERS), np.nan), dtype),
            ("micro_batches", np.full(len(probes.MICRO_BATCHES), np.nan), dtype),
        ]

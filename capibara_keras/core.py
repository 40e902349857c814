"""The seam to Keras: an optimizer that owns variables, and hands them to the pipeline.

The private Keras names relied on are `_iterations`, `_learning_rate`, `_get_current_learning_rate`, `_variables`,
`_trainable_variables`, `_get_variable_index`, `_var_key`, `_check_variables_are_known`, `_use_weight_decay`,
`_track_variable`, `_untrack_variable` and `_model_variables_moving_average`; a test fails loudly when Keras changes
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, checkpoint, config, errors, pipeline
from capibara_keras.config import OptimizerConfig
from capibara_keras.pipeline import Plan, State, VariablePlan
from capibara_keras.records import StepRecord
from capibara_keras.schedules import SchedulePlan
from capibara_keras.types import Scalar, Tensor, Variable

__all__ = ["Core"]

_Schedule = keras.optimizers.schedules.LearningRateSchedule


class Core(keras.optimizers.Optimizer):
    """A Keras optimizer for one `OptimizerConfig`.

    The options of the configuration are attributes. Those that are numbers of the algorithm (`beta_1`,
    `weight_decay`, the clip limit, …) may be assigned at any time, without a new trace; the others until the
    optimizer is built, and later where they do not change the state that is kept.
    """

    def __init__(self, configuration: OptimizerConfig, name: str | None = None) -> None:
        self._set(_options={}, _cache={}, _revision=0, _traced=False, _stale=False, _attached=False, _volatile=[], _state=None, _pending=None)
        self._set(_rate_multiplier=None, _excluded=set(), _plans={}, _total_steps=None, _raised=0)
        learning_rate = _pending_or_resolved(configuration, None)
        super().__init__(learning_rate=learning_rate, name=name)
        self._adopt(configuration)

    # Configuration -----------------------------------------------------------------------------------------

    def _set(self, **attributes: Any) -> None:
        """Set attributes that neither Keras nor TensorFlow should track."""
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_options", {}) and name != "loss_scale_factor":
            self.reconfigure({name: value})
        else:
            if name == "loss_scale_factor" and "_config" in self.__dict__:  # Keras' wrappers assign it
                self._set(_config=dataclasses.replace(self._config, loss_scale_factor=value))
            super().__setattr__(name, value)

    def _adopt(self, configuration: OptimizerConfig) -> None:
        """Take a configuration, and show its options as attributes."""
        options = configuration.to_options()
        hidden = ("algorithm", "learning_rate", *(configuration.schedule.to_options() if configuration.schedule else ()))
        shown = {name: value for name, value in options.items() if name not in hidden}
        self._set(_config=configuration, _options=shown, **shown)

    def reconfigure(self, options: Mapping[str, Any]) -> None:
        """Change options; all or none of them.

        Args:
            options: names and values as in the constructor.

        Raises:
            ConfigError: a bad option, or one that would change the state that a built optimizer keeps.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Adam()
        >>> optimizer.reconfigure({"beta_2": 0.95, "global_clipnorm": 1.0})
        >>> optimizer.beta_2
        0.95
        """
        given = config.canonical(options)
        merged = self._config.to_options() | {"learning_rate": self._config.learning_rate}
        if any(given.get(name) is not None for name in config.CLIPS):
            merged |= dict.fromkeys(config.CLIPS)
        self._change(config.parse(merged | given))

    def _change(self, new: OptimizerConfig) -> None:
        old = self._config
        if backend.tracing(()):
            raise errors.ConfigError("options cannot change inside a function that is being traced")
        if self.built:
            self._refuse_change_of_state(old, new)
        static = _static(new) != _static(old)
        self._adopt(new)
        if self.built:
            self._state.hyperparameters.assign(np.array(list(new.hyperparameters.values())))
        if new.schedule != old.schedule or new.use_scheduler != old.use_scheduler:
            self._resolve_schedule()
        elif static:
            self._retrace()

    def _schedule(self, plan: SchedulePlan) -> None:
        """Take a schedule, complete or to be completed."""
        self._change(dataclasses.replace(self._config, schedule=plan, use_scheduler=True))

    def _refuse_change_of_state(self, old: OptimizerConfig, new: OptimizerConfig) -> None:
        for what, kept in _STATE.items():
            if kept(new) != kept(old):
                raise errors.ConfigError(
                    f"{what} cannot change from {kept(old)!r} to {kept(new)!r}: the optimizer is built, and its state "
                    "would no longer fit. Make a new optimizer, or set this before the first update"
                )

    def _retrace(self) -> None:
        """Forget compiled steps; those that an outer function has compiled in, it must forget itself."""
        self._set(_cache={}, _plans={}, _revision=self._revision + 1, _stale=self._stale or self._traced, _traced=False)
        if self._stale and not self._attached:
            warnings.warn(
                f"{self.name}: a compiled train step still holds the options it was traced with. In `fit`, attach a "
                "callback of capibara_keras, or call model.make_train_function(force=True); trace other functions anew",
                stacklevel=4,
            )

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leave variables out of weight decay. Calls add up; refused once the optimizer is built.

        Args:
            var_list: variables.
            var_names: regular expressions, searched in `variable.path`.

        Raises:
            ConfigError: after `build`.

        >>> import capibara_keras as ck
        >>> optimizer = ck.AdamW(weight_decay=0.1)
        >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
        >>> optimizer.exclude_from_weight_decay(var_names=["norm"])
        >>> optimizer.weight_decay_exclude
        ['bias', 'norm']
        """
        if self.built:
            raise errors.ConfigError(
                "exclude_from_weight_decay: the optimizer is built already; exclude variables before the first update"
            )
        variables = list(var_list or ())
        self._excluded.update(self._var_key(v) for v in variables)
        exact = [_exactly(path_of(v)) for v in variables]
        names = config.patterns([*self._config.weight_decay_exclude, *(var_names or ()), *exact])
        self._adopt(dataclasses.replace(self._config, weight_decay_exclude=names))

    def _use_weight_decay(self, variable: Variable) -> bool:
        path = path_of(variable)
        named = any(re.search(pattern, path) for pattern in self._config.weight_decay_exclude)
        return not named and self._var_key(variable) not in self._excluded

    # Learning rate -----------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """The rate of the next update. Assigning a number makes it the current rate, also on top of a schedule:
        the schedule's shape goes on from there. Assigning a schedule replaces what was there."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        value = config.rate(value)
        if callable(value):
            if self._rate_multiplier is not None:
                self._rate_multiplier.assign(1.0)
            self._follow(value)
        elif isinstance(self._learning_rate, keras.Variable):
            self._learning_rate.assign(value)
        elif value != float(self.learning_rate):
            shape = float(self._scheduled(self._iterations)) or _peak_of(self._learning_rate)
            self._multiplier().assign(value / shape)

    def _get_current_learning_rate(self) -> Any:
        return self._rate_at(self._iterations)

    def _scheduled(self, step: Scalar) -> Scalar:
        """The schedule at a step, without multiplier."""
        source = self._learning_rate
        return ops.convert_to_tensor(source(step) if isinstance(source, _Schedule) else source())

    def _rate_at(self, step: Any) -> Scalar:
        """The rate at an update, multiplier included."""
        if isinstance(self._learning_rate, keras.Variable):
            return self._learning_rate
        rate = self._scheduled(step)
        return rate if self._rate_multiplier is None else rate * ops.cast(self._rate_multiplier, rate.dtype)

    def _multiplier(self) -> Variable:
        if self._rate_multiplier is None:
            self._set(_rate_multiplier=self.add_variable((), "ones", _scalar_dtype(), name="learning_rate_multiplier"))
        return self._rate_multiplier

    def _follow(self, schedule: Any) -> None:
        """Take the rate from a schedule (or a callable) from now on."""
        previous = self._learning_rate
        self._learning_rate = schedule
        if isinstance(previous, keras.Variable):
            self._untrack_variable(previous)
        if self.built:
            self._set(_state=self._state._replace(rate=self._multiplier()))
        self._retrace()

    def attach(self, *, total_steps: int | None = None) -> bool:
        """Tell the optimizer what it cannot see. The callbacks of this package do this in `fit`.

        Args:
            total_steps: updates of the whole training; completes a schedule that was configured without.

        Returns:
            Whether functions traced before now hold outdated options, and must be traced anew.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", learning_rate=1.0, scheduler_type="linear_with_warmup", warmup_ratio=0.1)
        >>> optimizer.attach(total_steps=100)
        False
        >>> optimizer.get_learning_rate(step=10)
        1.0
        """
        self._set(_attached=True)
        if total_steps is not None:
            self._set(_total_steps=errors.integer("total_steps", total_steps, 1))
            self._resolve_schedule()
        stale = self._stale
        self._set(_stale=False)
        return stale

    def _resolve_schedule(self) -> None:
        """Build the configured schedule from what is known."""
        if self._config.schedule is not None and self._config.use_scheduler:
            new = _pending_or_resolved(self._config, self._total_steps)
            if not isinstance(self._learning_rate, _Schedule) or new.get_config() != self._learning_rate.get_config():
                self._follow(new)

    # State -------------------------------------------------------------------------------------------------

    @property
    def iterations(self) -> Variable:
        """Updates so far: changes of the weights, neither micro-batches nor skipped updates."""
        return self._iterations

    @property
    def variables(self) -> list[Variable]:
        """All state: what checkpoints hold, then what the constructor sets anew."""
        return self._variables[:] + self._volatile

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the state for a list of variables, and restore what was loaded before. Building again does nothing.

        Raises:
            CheckpointError: what was loaded belongs to other variables or to another algorithm; each time.
        """
        if not self.built:
            self._build(list(variables))
        if self._pending is not None:
            with backend.outside_trace():
                checkpoint.restore(self._inventory(), self._config, *self._pending)
            self._set(_pending=None)

    def _build(self, variables: list[Variable]) -> None:
        with self._hidden("use_ema", "gradient_accumulation_steps"):  # Keras would make its own state for them
            super().build(variables)
        self._set(_state=self._create_state(variables))
        averages = [row[0] if row else None for row in self._state.averages]
        if self.use_ema:
            self._set(_model_variables_moving_average=averages)

    @contextlib.contextmanager
    def _hidden(self, *names: str) -> Iterator[None]:
        values = {name: getattr(self, name) for name in names}
        self._set(**dict.fromkeys(names))
        yield
        self._set(**values)

    def _create_state(self, variables: list[Variable]) -> State:
        configuration, dtype = self._config, _scalar_dtype()
        rate = self._learning_rate if isinstance(self._learning_rate, keras.Variable) else self._multiplier()
        accumulating = configuration.accumulation_steps > 1
        hyperparameters = list(configuration.hyperparameters.values())
        size = len(variables)
        return State(
            params=variables,
            counters=self.add_variable((len(pipeline.COUNTERS),), dtype="int", name="counters"),
            statistics=self.add_variable((len(pipeline.STATISTICS),), _nan, dtype, name="statistics"),
            gradient_norms=self.add_variable((size,), _nan, dtype, name="gradient_norms"),
            window=[
                self.add_variable((), dtype="int", name="micro_step"),
                self._untracked("accumulation_steps", configuration.accumulation_steps, "int"),
            ]
            if accumulating
            else [],
            contributed=[self.add_variable((size,), dtype="int", name="contributed")] if accumulating else [],
            slots=[
                [self._like(v, slot.name, slot.shape, slot.dtype, slot.initializer) for slot in configuration.rule.slots]
                if not _overwrites(v)
                else []
                for v in variables
            ],
            averages=[[self._like(v, "average")] if self.use_ema and not _overwrites(v) else [] for v in variables],
            accumulators=[
                [self._like(v, "accumulator", aggregation="sum", synchronization="on_read")] if accumulating else []
                for v in variables
            ],
            updates=self._iterations,
            rate=rate,
            hyperparameters=self._untracked("hyperparameters", hyperparameters, dtype),
        )

    def _like(
        self,
        variable: Variable,
        name: str,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        initializer: Any = "zeros",
        **distribution: str,
    ) -> Variable:
        """A state variable for a model variable, in its place and layout."""
        own_shape = tuple(variable.shape)
        with backend.colocated(variable):
            state = keras.Variable(
                initializer=keras.initializers.get(initializer),
                shape=own_shape if shape is None else shape,
                dtype=dtype or compute_dtype(variable),
                trainable=False,
                layout=getattr(variable, "_layout", None) if shape in (None, own_shape) else None,
                name=f"{path_of(variable).replace('/', '_')}_{name}",
                **distribution,
            )
        self._track_variable(state)
        return state

    def _untracked(self, name: str, value: Any, dtype: str) -> Variable:
        """A variable that `variables` lists but no checkpoint holds: the constructor's values win."""
        value = np.array(value)
        variable = keras.Variable(
            lambda shape, dtype: ops.convert_to_tensor(value, dtype), value.shape, dtype, trainable=False, name=name
        )
        self._volatile.append(variable)
        return variable

    # Update ------------------------------------------------------------------------------------------------

    def apply(self, grads: Sequence[Tensor | None], trainable_variables: Sequence[Variable] | None = None) -> None:
        """Update variables from gradients, or add a micro-batch to the window.

        Args:
            grads: one gradient per variable; `None` leaves a variable as it is; `IndexedSlices` with equal
                indices are summed.
            trainable_variables: the variables; builds the optimizer on first use. Default: those it was built
                with.

        Raises:
            ConfigError: no gradient at all, or lists that do not match.

        >>> import capibara_keras as ck, keras
        >>> w = keras.Variable([1.0, 2.0])
        >>> ck.SGD(learning_rate=0.5).apply([keras.ops.array([1.0, 1.0])], [w])
        >>> w.numpy().tolist()
        [0.5, 1.5]
        """
        self._apply(grads, trainable_variables)

    def _apply(
        self,
        grads: Sequence[Tensor | None],
        trainable_variables: Sequence[Variable] | None,
        *,
        schedule_step: Scalar | None = None,
        measure: bool = False,
    ) -> None:
        grads = list(grads)
        if not grads:
            return
        full = self._aligned(grads, trainable_variables)
        accumulating = bool(self._state.window)
        uncertain = frozenset(i for i, g in enumerate(full) if g is None) if accumulating else frozenset()
        self._set(_traced=self._traced or backend.tracing(full))
        extra = () if schedule_step is None else (ops.convert_to_tensor(schedule_step, "int32"),)
        key = (self._revision, self.loss_scale_factor, bool(extra), measure)
        backend.run(self._step(uncertain, measure), full, extra, self._cache, key)
        if self.nonfinite == "raise" and not backend.tracing(full):
            self.raise_if_nonfinite()

    def _aligned(self, grads: list[Tensor | None], variables: Sequence[Variable] | None) -> list[Tensor | None]:
        """One dense gradient or `None` for each variable that the optimizer was built with."""
        if variables is None:
            if not self.built:
                raise errors.ConfigError(
                    "apply: gradients without variables, and the optimizer is not built. Give `trainable_variables`, "
                    "or call `optimizer.build(variables)` first"
                )
            variables = self._trainable_variables
        variables = list(variables)
        if len(grads) != len(variables):
            raise errors.ConfigError(f"apply: {len(grads)} gradients for {len(variables)} variables")
        if not self.built or self._pending is not None:
            self.build(variables)
        self._check_variables_are_known(variables)
        if all(g is None for g in grads):
            raise errors.ConfigError("apply: No gradients provided for any variable; every gradient is None")
        absent = [path_of(v) for v, g in zip(variables, grads, strict=True) if g is None]
        if absent:
            warnings.warn(f"Gradients do not exist for variables {absent}; they stay as they are", stacklevel=4)
        full: list[Tensor | None] = [None] * len(self._trainable_variables)
        for v, g in zip(variables, grads, strict=True):
            if g is not None:
                full[self._get_variable_index(v)] = backend.dense(g, v)
        return full

    def _step(self, uncertain: frozenset[int], measure: bool) -> backend.Step:
        plan = self._plan()

        def update(state: State, grads: list[Tensor | None], extra: tuple[Tensor, ...]) -> State:
            step = extra[0] if extra else None
            return pipeline.update(plan, state, grads, uncertain=uncertain, schedule_step=step, measure=measure)

        if not self._state.window:
            return backend.Step(self._state, update, jit=self.jit_compile, fused=plan.fused)
        return backend.Step(
            self._state,
            update,
            accumulate=lambda state, grads: pipeline.accumulate(plan, state, grads),
            sums=lambda state: [row[0] for row in state.accumulators],
            is_due=pipeline.window_is_full,
            jit=self.jit_compile,
            fused=plan.fused,
        )

    def _plan(self) -> Plan:
        """What is fixed for a compiled step, as of now."""
        if self.loss_scale_factor not in self._plans:
            configuration = self._config
            scheduled = not isinstance(self._learning_rate, keras.Variable)
            independent = configuration.weight_decay_mode == "independent" and configuration.weight_decay is not None
            self._plans[self.loss_scale_factor] = Plan(
                rule=configuration.rule,
                clip=configuration.clip,
                variables=tuple(
                    VariablePlan(
                        path=path_of(v),
                        dtype=compute_dtype(v),
                        decays=self._use_weight_decay(v),
                        overwrite=_overwrites(v),
                        constraint=getattr(v, "constraint", None),
                    )
                    for v in self._trainable_variables
                ),
                hyperparameters=tuple(configuration.hyperparameters),
                dtype=_scalar_dtype(),
                schedule=self._scheduled if scheduled else None,
                peak=(independent and (_peak_of(self._learning_rate) if scheduled else configuration.learning_rate))
                or 1.0,  # of a rate that is 0 until it is assigned, the peak is not known
                weight_decay_mode=configuration.weight_decay_mode,
                maximize=configuration.maximize,
                nonfinite=configuration.nonfinite,
                ema_overwrite_frequency=configuration.ema_overwrite_frequency,
                loss_scale=self.loss_scale_factor,
                fused=configuration.foreach,
            )
        return self._plans[self.loss_scale_factor]

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """At the end of `fit`, Keras asks for the final weights: the averages, with EMA."""
        if self.use_ema:
            for variable in var_list:
                row = self._state.averages[self._get_variable_index(variable)]
                if row:
                    variable.assign(ops.cast(row[0], variable.dtype))

    # Reading back ------------------------------------------------------------------------------------------

    def statistics(self) -> StepRecord:
        """What the last update did. Parameter and update norms are `nan` unless `step` measured them.

        On the JAX backend, `fit` keeps variables to itself until `model.jax_state_sync()`.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD(learning_rate=0.5)
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([1.0, 2.0])])
        >>> optimizer.statistics().gradient_norm
        5.0
        """
        if not self.built:
            raise errors.ConfigError("statistics: there are none before the first update")
        values = dict(zip(pipeline.STATISTICS, ops.convert_to_numpy(self._state.statistics).tolist(), strict=True))
        skipped = values.pop("skipped") == 1
        updates = int(ops.convert_to_numpy(self._iterations))
        clipped = values.pop("clipped") == 1
        return StepRecord(update=updates - (not skipped), clipped=clipped, skipped=skipped, **values)

    def counters(self) -> dict[str, int]:
        """How many micro-batches were seen, and how many updates were skipped or clipped.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([float("nan")])], [keras.Variable([1.0])])
        >>> optimizer.counters()
        {'micro_steps': 1, 'skipped': 1, 'clipped': 0}
        """
        if not self.built:
            return dict.fromkeys(pipeline.COUNTERS, 0)
        return dict(zip(pipeline.COUNTERS, ops.convert_to_numpy(self._state.counters).tolist(), strict=True))

    def raise_if_nonfinite(self) -> None:
        """Raise if the last update was skipped for a gradient that was not finite (`nonfinite="raise"`).

        Raises:
            FloatingPointError: names the variables.
        """
        skips = self.counters()["skipped"]
        if self.built and self.statistics().skipped and skips != self._raised:
            self._set(_raised=skips)  # a call that only adds to the next window does not raise again
            norms = ops.convert_to_numpy(self._state.gradient_norms)
            bad = [path_of(v) for v, x in zip(self._trainable_variables, norms, strict=True) if np.isinf(x)]
            raise FloatingPointError(
                f"update {int(ops.convert_to_numpy(self._iterations))}: the gradient is not finite in {', '.join(bad)}; "
                "weights and state are as before"
            )

    # Saving ------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments, as plain data."""
        options = self._config.to_options() | {"name": self.name, "loss_scale_factor": self.loss_scale_factor}
        if isinstance(self._learning_rate, keras.Variable):
            current = float(ops.convert_to_numpy(self._learning_rate))
            configured = self._config.learning_rate
            options["learning_rate"] = configured if _same(current, configured) else current
        elif not (self._config.schedule is not None and self._config.use_scheduler):
            options["learning_rate"] = keras.saving.serialize_keras_object(self._learning_rate)
        return options

    def save_own_variables(self, store: Any) -> None:
        """Write the state into one of Keras' stores (`.keras`, `.weights.h5`)."""
        checkpoint.save(self._inventory(), self._config, store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the state from one of Keras' stores; before `build`, it is kept until then.

        Raises:
            CheckpointError: the state belongs to other variables or to another algorithm; nothing is written.
        """
        loaded = checkpoint.load(store)
        if loaded is None:
            warnings.warn(f"{self.name}: the file holds no optimizer state; starting afresh", stacklevel=2)
        elif self.built:
            checkpoint.restore(self._inventory(), self._config, *loaded)
            self._set(_pending=None)
        else:
            self._set(_pending=loaded)

    def _inventory(self) -> dict[checkpoint.Key, Variable]:
        """State variables by (name, path of the variable they belong to)."""
        rate = {("learning_rate", ""): self._learning_rate} if isinstance(self._learning_rate, keras.Variable) else {}
        if self._rate_multiplier is not None:
            rate = {("learning_rate_multiplier", ""): self._rate_multiplier}
        inventory = {("iteration", ""): self._iterations} | rate
        if self._state is None:
            return inventory
        state = self._state
        for name in ("counters", "statistics", "gradient_norms"):
            inventory[name, ""] = getattr(state, name)
        if state.window:
            inventory["micro_step", ""], inventory["contributed", ""] = state.window[0], state.contributed[0]
        names = [slot.name for slot in self._config.rule.slots]
        for path, slots, average, accumulator in zip(
            _unique([path_of(v) for v in state.params]), state.slots, state.averages, state.accumulators, strict=True
        ):
            inventory |= {(name, path): variable for name, variable in zip(names, slots, strict=False)}
            inventory |= {("average", path): variable for variable in average}
            inventory |= {("accumulator", path): variable for variable in accumulator}
        return inventory


def path_of(variable: Variable) -> str:
    """The path of a Keras variable, or the name of a native one."""
    return str(getattr(variable, "path", None) or variable.name.split(":")[0])


def _exactly(path: str) -> str:
    """A pattern for one path. A loaded `Sequential` drops its own name, so the first of three parts is optional."""
    first, _, rest = path.partition("/")
    return f"^({re.escape(first)}/)?{re.escape(rest)}$" if "/" in rest else f"^{re.escape(path)}$"


def compute_dtype(variable: Variable) -> str:
    """Of the update: the variable's dtype, but float32 for a half-precision one, where moments would stall."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float64" if dtype == "float64" else "float32"


def _scalar_dtype() -> str:
    return "float64" if keras.config.floatx() == "float64" else "float32"


def _nan(shape: Any, dtype: Any = None) -> Tensor:
    return ops.full(shape, float("nan"), dtype)


def _overwrites(variable: Variable) -> bool:
    return bool(getattr(variable, "overwrite_with_gradient", False))


def _same(stored: float, configured: Any) -> bool:
    return not callable(configured) and stored in (configured, float(np.float32(configured)))


def _unique(paths: list[str]) -> list[str]:
    """Paths with a number appended where one occurs again."""
    seen: dict[str, int] = {}
    result = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        result.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return result


def _peak_of(schedule: Any) -> float:
    """The largest rate of a schedule: of this package's by their `peak`, of Keras' by their arguments."""
    peak = getattr(schedule, "peak", None)
    if peak is None:
        options = schedule.get_config() if isinstance(schedule, _Schedule) else {}
        peak = options.get("warmup_target") or options.get("initial_learning_rate")
        peak = max(options["values"]) if "values" in options else peak
    if peak is None:
        raise errors.ConfigError(
            f"the peak of {schedule!r} is not known, and is needed here: give the schedule an attribute `peak`"
        )
    return float(peak)


class _Pending(_Schedule):
    """Stands for a schedule whose steps are not known yet; asking for the rate says what is missing."""

    def __init__(self, configuration: OptimizerConfig, total_steps: int | None) -> None:
        self.configuration, self.total_steps = configuration, total_steps

    def __call__(self, step: Scalar) -> Scalar:
        return self.configuration.schedule.resolve(self.configuration.learning_rate, self.total_steps)(step)  # type: ignore[union-attr]

    def get_config(self) -> dict[str, Any]:
        return {"configuration": self.configuration, "total_steps": self.total_steps}


def _pending_or_resolved(configuration: OptimizerConfig, total_steps: int | None) -> Any:
    """The rate for a configuration: a number, a schedule, or a schedule to be completed."""
    plan = configuration.schedule
    if plan is None or not configuration.use_scheduler:
        return configuration.learning_rate
    if plan.missing(total_steps):
        return _Pending(configuration, total_steps)
    return plan.resolve(configuration.learning_rate, total_steps)


_STATE = {
    "algorithm": lambda c: c.rule.family,
    "the state per variable": lambda c: [slot.name for slot in c.rule.slots],
    "use_ema": lambda c: c.use_ema,
    "gradient_accumulation_steps": lambda c: c.accumulation_steps,
}
"""What a built optimizer cannot change."""


def _static(configuration: OptimizerConfig) -> Any:
    """What a compiled step depends on: all but the numbers in the packed hyperparameters."""
    rule = {k: v for k, v in dataclasses.asdict(configuration.rule).items() if not isinstance(v, float)}  # type: ignore[call-overload]
    others = {k: v for k, v in configuration.to_options().items() if not isinstance(v, float)}
    return type(configuration.rule), rule, others, type(configuration.clip)

"""The seam to Keras: an optimizer that owns variables, and hands them to the pipeline.

The private Keras names relied on are `_iterations`, `_learning_rate`, `_get_current_learning_rate`, `_variables`,
`_trainable_variables`, `_trainable_variables_indices`, `_get_variable_index`, `_var_key`, `_use_weight_decay`,
`_track_variable`, `_untrack_variable` and `_model_variables_moving_average`; a test fails loudly when Keras
changes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import re
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, checkpoint, config, errors, pipeline, readings
from capibara_keras.config import OptimizerConfig
from capibara_keras.execution import INLINE, Execution
from capibara_keras.pipeline import State
from capibara_keras.plan import Plan
from capibara_keras.planning import group_numbers, make_plan
from capibara_keras.rate import peak_of, rate_of
from capibara_keras.readings import RecentUpdates
from capibara_keras.records import StepRecord
from capibara_keras.rules import UpdateRule, Wrapper
from capibara_keras.schedules import ConstantWithWarmup, SchedulePlan
from capibara_keras.state import Row, StateVariables, compute_dtype, path_of, scalar_dtype, slots_of
from capibara_keras.types import Scalar, Tensor, Variable

__all__ = ["Core"]

_Schedule = keras.optimizers.schedules.LearningRateSchedule


class Core(keras.optimizers.Optimizer):
    """A Keras optimizer for one `OptimizerConfig`.

    The options of the configuration are attributes. Those that are numbers of the algorithm (`beta_1`,
    `weight_decay`, the clip limit, …) may be assigned at any time, without a new trace; the others until the
    optimizer is built, and later where they do not change the state that is kept.
    """

    _learning_rate: Any

    def __init__(self, configuration: OptimizerConfig, name: str | None = None) -> None:
        self._set(_options={}, _cache={}, _plans={}, _revision=0, _traced=False, _stale=False, _attached=False)
        self._set(_states=StateVariables(self), _rate_multiplier=None, _pending=None, _excluded=set())
        self._set(_total_steps=None, _model=lambda: None, _wrapped=False, _weight=None, _raised=0, _fit_may_end=False)
        self._set(_warned=False, _evaluating=None, _early_loss=None)
        super().__init__(learning_rate=rate_of(configuration), name=name)
        self._adopt(configuration)

    # Configuration -----------------------------------------------------------------------------------------

    def _set(self, **attributes: Any) -> None:
        """Set attributes that neither Keras nor TensorFlow should track."""
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "loss_scale_factor" and self.__dict__.get("_options"):
            self._set(_wrapped=True)  # by a Keras wrapper, which scales the loss itself and never asks this one
        if name in self.__dict__.get("_options", {}) and name != "loss_scale_factor":
            self.reconfigure({name: value})
        else:
            if name == "loss_scale_factor" and "_config" in self.__dict__:  # Keras' wrappers assign it
                self._set(_config=dataclasses.replace(self._config, loss_scale_factor=value))
            super().__setattr__(name, value)

    def _adopt(self, configuration: OptimizerConfig) -> None:
        """Take a configuration, and show its options as attributes."""
        options = configuration.to_options()
        hidden = (
            "algorithm",
            "learning_rate",
            *(configuration.schedule.to_options() if configuration.schedule else ()),
        )
        shown = {name: value for name, value in options.items() if name not in hidden}
        shown = dict.fromkeys(config.CLIPPING) | shown  # those that are not set too: they can be assigned
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
        current = self._config.to_options()
        if any(given.get(name) is not None for name in (*config.CLIPS, *config.CLIPPING)):
            kept = config.CLIPPING if any(name in given for name in config.CLIPPING) else ()
            current |= {name: None for name in (*config.CLIPS, *config.CLIPPING) if name not in kept}
        self._change(config.parse(current | given))

    def _change(self, new: OptimizerConfig) -> None:
        """Take a new configuration: numbers into variables, the rest by forgetting what was compiled."""
        old = self._config
        if backend.tracing(()):
            raise errors.ConfigError("options cannot change inside a function that is being traced")
        if self.built:
            self._refuse_change_of_state(old, new)
        if self.pending_micro_batches and not new.accumulates:
            new = dataclasses.replace(new, accumulator=True)  # the window is closed by the next micro-batch
        rate_of(new, self._total_steps)  # raises if its options contradict each other: now, while nothing has changed
        self._adopt(new)
        if self.built and _static(new) == _static(old):
            self._states.set_numbers(new)
        elif self.built:
            self._assemble()
        before, now = ((c.schedule, c.learning_rate) if c.use_scheduler and c.schedule else None for c in (old, new))
        if now is None and new.learning_rate != old.learning_rate:
            self.learning_rate = new.learning_rate
        if now is None and before is not None:
            self._follow(ConstantWithWarmup(float(self.learning_rate)))
        elif now != before:
            self._resolve_schedule()
        elif _static(new) != _static(old):
            self._retrace()

    def _schedule(self, plan: SchedulePlan) -> None:
        """Take a schedule, complete or to be completed; a rate assigned on top of the last one is forgotten."""
        if self._rate_multiplier is not None:
            self._rate_multiplier.assign(1.0)
        self._change(dataclasses.replace(self._config, schedule=plan, use_scheduler=True))

    def _refuse_change_of_state(self, old: OptimizerConfig, new: OptimizerConfig) -> None:
        paths, variables = [row.path for row in self._rows], self._trainable_variables

        def kept(settings: OptimizerConfig) -> dict[str, Any]:
            rules = [settings.parts[number].rule for number in group_numbers(settings, paths)]
            slots = [(rule.family, slots_of(rule, v)) for rule, v in zip(rules, variables, strict=True)]
            names = [" ".join([family, *(slot.name for slot in own)]) for family, own in slots]
            return {
                "algorithm and state": list(dict.fromkeys(names)),
                **{f"state of {path}": own for path, own in zip(paths, slots, strict=True)},
                "use_ema": settings.use_ema,
                "shard_state": settings.shard_state,
            }

        before, after = kept(old), kept(new)
        for what in before:
            if before[what] != after[what]:
                raise errors.ConfigError(
                    f"{what} cannot change from {before[what]!r} to {after[what]!r}: the optimizer is built, and its "
                    "state would no longer fit. Make a new optimizer, or set this before the first update"
                )

    def _retrace(self) -> None:
        """Forget compiled steps, and the train function of the model, if it is known; other functions that have
        compiled a step in must forget it themselves."""
        self._set(_cache={}, _plans={}, _revision=self._revision + 1, _stale=self._stale or self._traced, _traced=False)
        model = self._model()
        if self._stale and getattr(model, "train_function", None) is not None:
            model.make_train_function(force=True)
            self._set(_stale=False)
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
            shape = float(self._scheduled(self._iterations)) or peak_of(self._learning_rate)
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
            self._set(_rate_multiplier=self.add_variable((), "ones", scalar_dtype(), name="learning_rate_multiplier"))
        return self._rate_multiplier

    def _follow(self, schedule: Any) -> None:
        """Take the rate from a schedule (or a callable) from now on."""
        previous = self._learning_rate
        self._learning_rate = schedule
        if isinstance(previous, keras.Variable):
            self._untrack_variable(previous)
        if self.built:
            self._assemble()
        self._retrace()

    def attach(self, *, model: Any = None, total_steps: int | None = None) -> bool:
        """Tell the optimizer what it cannot see. The callbacks of this package do this in `fit`.

        Args:
            model: tells which layers the variables belong to.
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
        if model is not None:
            if self._plans and self._model() is not model:  # they were made without knowing its layers
                self._retrace()
            self._set(_model=weakref.ref(model))
        if total_steps is not None:
            self._set(_total_steps=errors.integer("total_steps", total_steps, 1))
            self._resolve_schedule()
        stale = self._stale
        self._set(_stale=False)
        return stale

    def _resolve_schedule(self) -> None:
        """Build the configured schedule from what is known."""
        if self._config.schedule is not None and self._config.use_scheduler:
            new = rate_of(self._config, self._total_steps)
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
        return self._variables[:] + self._states.untracked

    @property
    def _state(self) -> State:
        """The state as variables."""
        return self._states.state

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the state for a list of variables, and restore what was loaded before.

        Building again with the same variables does nothing; with others (layers unfrozen, or frozen again) the
        state of the known ones is kept, and new ones start afresh, their bias correction at their own first update.

        Raises:
            CheckpointError: what was loaded belongs to other variables or to another algorithm; each time.
        """
        variables = list(variables)
        if not (self.built and [self._var_key(v) for v in variables] == list(self._trainable_variables_indices)):
            self._build(variables)
        if self._pending is not None:
            with backend.outside_trace():
                self._restore(*self._pending)

    def _build(self, variables: list[Variable]) -> None:
        if self.shard_state and keras.backend.backend() != "jax":
            raise errors.ConfigError(f"shard_state=True needs the JAX backend, this is {keras.backend.backend()!r}")
        extended = self.built
        self._trainable_variables_indices.clear()
        with self._hidden("use_ema", "gradient_accumulation_steps"):  # Keras would make its own state for them
            super().build(variables)
        self._assemble()
        if extended:
            self._retrace()

    @contextlib.contextmanager
    def _hidden(self, *names: str) -> Iterator[None]:
        values = {name: getattr(self, name) for name in names}
        self._set(**dict.fromkeys(names))
        yield
        self._set(**values)

    def _assemble(self) -> None:
        """Bring the state variables in line with configuration and model."""
        variables = self._trainable_variables
        with backend.scope(self):
            rate = self._learning_rate if isinstance(self._learning_rate, keras.Variable) else self._multiplier()
        numbers = group_numbers(self._config, [path_of(v) for v in variables])
        with backend.scope(self):
            state = self._states.assemble(self._config, variables, numbers, rate)
            if self._evaluating is None and any(part.rule.two_points for part in self._config.parts):
                self._set(_evaluating=self.add_variable((), "zeros", "int32", name="evaluating"))
        if self.use_ema:
            self._set(_model_variables_moving_average=[row[0] if row else None for row in state.averages])

    @property
    def _rows(self) -> list[Row]:
        """The state of each variable that the optimizer is built on."""
        return [self._states.rows[self._var_key(v)] for v in self._trainable_variables]

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

    @backend.unconverted
    def _apply(
        self,
        grads: Sequence[Tensor | None],
        trainable_variables: Sequence[Variable] | None,
        *,
        measure: bool = False,
        **extra: Any,
    ) -> None:
        grads = list(grads)
        if not grads:
            return
        full = self._aligned(grads, trainable_variables)
        if self._early_loss is not None:
            self._take_loss(self._early_loss)
            self._set(_early_loss=None)
        weight, self_weight = extra.pop("weight", None), self._weight
        weight = self_weight if weight is None else weight
        given = {name: ops.convert_to_tensor(x, "int32") for name, x in extra.items() if x is not None}
        if weight is not None:
            given["weight"] = ops.convert_to_tensor(weight, scalar_dtype())
        uncertain = frozenset(i for i, g in enumerate(full) if g is None) if self._state.window else frozenset()
        self._set(_traced=self._traced or backend.tracing(full), _weight=None)
        backend.run(self._step(uncertain, measure), full, given, self._cache, self._key(*sorted(given), measure))
        if self.nonfinite == "raise" and not backend.tracing(full):
            self.raise_if_nonfinite()

    def _key(self, *parts: Any) -> tuple[Any, ...]:
        """What tells compiled steps apart, beside which gradients are missing."""
        return (self._revision, self.loss_scale_factor, self._arrives_divided, *parts)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss before its gradient is taken: multiplied by `loss_scale_factor`, and divided by the micro-batches
        of a window where `loss_divided` asks for that.

        >>> import capibara_keras as ck
        >>> ck.Adam(loss_scale_factor=8.0).scale_loss(2.0)
        16.0
        """
        if backend.observes(loss):
            self._take_loss(loss)
        loss = super().scale_loss(loss)
        if not (self._config.loss_divided and self._config.accumulates) or self._wrapped:
            return loss
        full = self._state.window[1] if self.built else self._config.accumulation_steps
        return loss / ops.cast(full, getattr(loss, "dtype", "float32"))

    def observe(self, loss: Any) -> None:
        """Tell the optimizer the loss of a batch, before `apply`; also inside a compiled step. In `fit` on TensorFlow
        it knows the loss by itself. Of several before one update (micro-batches) the mean is kept.

        Args:
            loss: scalar, neither scaled nor divided; number or tensor.

        Raises:
            ConfigError: not a scalar; or inside a replica, where each has another loss.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.SGD()
        >>> optimizer.build([w])
        >>> optimizer.observe(0.25)
        >>> optimizer.apply([keras.ops.array([1.0])], [w])
        >>> optimizer.statistics().loss
        0.25
        """
        if not self.built:
            raise errors.ConfigError("observe: the optimizer is not built; call `optimizer.build(variables)` first")
        if len(getattr(loss, "shape", ())):
            raise errors.ConfigError(f"observe: expected a scalar, received shape {tuple(loss.shape)}")
        if backend.in_replica():
            raise errors.ConfigError(
                "observe: each replica has another loss. Give the reduced one to the monitor on the host: "
                "`monitor.update(loss=...)`"
            )
        self._take_loss(loss)

    def _take_loss(self, loss: Any) -> None:
        if self.built:
            dtype = scalar_dtype()
            self._state.losses.assign_add(ops.stack([ops.cast(loss, dtype), ops.ones((), dtype)]))
        elif not backend.tracing(()):
            self._set(_early_loss=loss)  # of the very first batch, which `apply` builds the optimizer on

    @property
    def _arrives_divided(self) -> bool:
        """Whether the loss has been divided: under a wrapper of Keras' nobody calls `scale_loss`."""
        return self._config.loss_divided and self._config.accumulates and not self._wrapped

    @backend.unconverted
    def _accumulate(self, grads: Sequence[Tensor | None], variables: Sequence[Variable] | None, weight: Any) -> None:
        """Add a micro-batch to the window, and leave the update to `flush`."""
        if not self._config.accumulates:
            self.reconfigure({"accumulator": True})
        full = self._aligned(list(grads), variables)
        step = self._step(frozenset(), False)
        step = dataclasses.replace(step, window=dataclasses.replace(step.open_window, is_due=None))
        weight = _checked_weight(weight)
        given = {} if weight is None else {"weight": ops.convert_to_tensor(weight, scalar_dtype())}
        backend.run(step, full, given, self._cache, self._key("accumulate", *given))

    def _clear_window(self) -> None:
        """Forget the micro-batches of the window."""
        if self.built and self._state.window:
            state = self._state
            rows = [row[0] for row in state.accumulators]
            for variable in [*rows, state.window[0], state.window[2], *state.contributed]:
                variable.assign(ops.zeros(variable.shape, variable.dtype))

    def weigh(self, weight: Any) -> None:
        """Give the next micro-batch a weight in its window's mean: its number of tokens, say. Call it before `apply`,
        also inside a compiled `train_step`.

        Args:
            weight: scalar ≥ 0; number or tensor. Micro-batches without one weigh 1.
        """
        self._set(_weight=_checked_weight(weight))

    def flush(self) -> None:
        """Update with the micro-batches that are in the window, though it is not full; nothing if there are none.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.SGD(learning_rate=0.5, gradient_accumulation_steps=4)
        >>> optimizer.apply([keras.ops.array([1.0])], [w])
        >>> optimizer.flush()
        >>> w.numpy().tolist()
        [0.5]
        """
        if self.built and self._state.window and self.pending_micro_batches:
            self.training_mode()  # the gradients were taken there
            everything = frozenset(range(len(self._trainable_variables)))
            backend.flush(self._step(everything, False), self._cache, self._key())

    @property
    def pending_micro_batches(self) -> int:
        """Micro-batches in the window that no update has used yet."""
        return int(ops.convert_to_numpy(self._state.window[0])) if self.built and self._state.window else 0

    def _aligned(self, grads: list[Tensor | None], variables: Sequence[Variable] | None) -> list[Tensor | None]:
        """One dense gradient or `None` for each variable that the optimizer was built with."""
        if variables is None:
            if not self.built:
                raise errors.ConfigError(
                    "apply: gradients without variables, and the optimizer is not built. Give `trainable_variables`, "
                    "or call `optimizer.build(variables)` first"
                )
            variables = self._trainable_variables
        if not backend.tracing(grads) and self._is_evaluating:
            raise errors.ConfigError(
                "apply: the variables hold the point to be evaluated; call `optimizer.training_mode()` before "
                "gradients are taken, or give `fit` a callback of capibara_keras, which does"
            )
        variables = list(variables)
        if self.built and any(self._var_key(v) not in self._trainable_variables_indices for v in variables):
            if backend.tracing(grads):  # the trace that is being made takes the place of the one before
                self._set(_traced=False)
            with backend.outside_trace():
                self._extend(variables)
        if len(grads) != len(variables):
            raise errors.ConfigError(f"apply: {len(grads)} gradients for {len(variables)} variables")
        if not self.built or self._pending is not None:
            self.build(self._trainable_variables if self.built else variables)
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

    def _extend(self, variables: list[Variable]) -> None:
        """Take in variables that the model has gained since `build`."""
        unknown = [v for v in variables if self._var_key(v) not in self._trainable_variables_indices]
        if len(unknown) == len(variables):
            raise errors.ConfigError(
                f"apply: none of the variables {[path_of(v) for v in unknown][:5]} is one that this optimizer was "
                "built with; make an optimizer of its own for another model, or call `optimizer.build(variables)`"
            )
        known = [v for v in self._trainable_variables if not any(v is other for other in variables)]
        self.build([*variables, *known])

    def _step(self, uncertain: frozenset[int], measure: bool) -> backend.Step:
        plan, state = self._plan(), self._state

        def update(
            state: State, grads: list[Tensor | None] | None, extra: Mapping[str, Tensor], run: Execution
        ) -> State:
            at = extra.get("schedule_step")
            return pipeline.update(plan, state, grads, run, uncertain=uncertain, schedule_step=at, measure=measure)

        def accumulate(
            state: State,
            grads: list[Tensor | None],
            extra: Mapping[str, Tensor],
            keep: Scalar | None,
            run: Execution,
        ) -> State:
            return pipeline.accumulate(plan, state, grads, run, weight=extra.get("weight"), keep=keep)

        window = backend.Window(
            accumulate=accumulate,
            sums=lambda state: [row[0] if row else None for row in state.accumulators],
            is_due=pipeline.window_is_full,
            is_finite=pipeline.is_finite if plan.nonfinite == "drop_micro_batch" else None,
            reduced=plan.clip_micro_batches,
        )
        return backend.Step(
            state,
            update,
            INLINE,
            window=window if state.window else None,
            jit=self.jit_compile,
            fused=self._config.foreach,
            donates=not self.differentiable,
        )

    def _plan(self) -> Plan:
        """What is fixed for a compiled step, as of now."""
        key = (self.loss_scale_factor, self._arrives_divided)
        if key not in self._plans:
            settings, scheduled = self._config, not isinstance(self._learning_rate, keras.Variable)
            relative = settings.weight_decay_mode in ("independent", "corrected")
            self._plans[key] = make_plan(
                settings,
                self._trainable_variables,
                self._rows,
                decays=[self._use_weight_decay(v) for v in self._trainable_variables],
                schedule=self._scheduled if scheduled else None,
                peak=(relative and (peak_of(self._learning_rate) if scheduled else settings.learning_rate))
                or 1.0,  # of a rate that is 0 until it is assigned, the peak is not known
                loss_scale=self.loss_scale_factor,
                divided=self._arrives_divided,
                model=self._model(),
            )
        return self._plans[key]

    def let_fit_end(self, may_end: bool) -> None:
        """Whether `fit` may end now, and then use the micro-batches that are left. The callbacks call this."""
        self._set(_fit_may_end=may_end)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """At the end of `fit`, Keras asks for the final weights: with EMA the averages. Before that, the micro-batches
        that are left are used, if a callback of this package is there."""
        if self._fit_may_end and self.remainder == "flush":
            self.flush()
        elif self.remainder == "flush" and self.pending_micro_batches and not self._warned:
            self._set(_warned=True)
            warnings.warn(
                f"{self.name}: {self.pending_micro_batches} micro-batches do not fill a window, and wait for more. Any "
                "callback of capibara_keras uses them at the end of fit, as does optimizer.flush()",
                stacklevel=2,
            )
        if self.use_ema:
            for variable in var_list:
                row = self._state.averages[self._get_variable_index(variable)]
                if row:
                    variable.assign(ops.cast(row[0], variable.dtype))

    def evaluation_mode(self) -> None:
        """Put the point to be evaluated and saved into the variables, where that is not the one in which gradients are
        taken (Schedule-Free); nothing for other algorithms, or if it is there already.

        The callbacks of this package do this at the end of an epoch, of `fit`, and before validation.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.ScheduleFreeSGD(learning_rate=0.5)
        >>> for g in (1.0, 1.0):
        ...     optimizer.apply([keras.ops.array([g])], [w])
        >>> optimizer.evaluation_mode()
        >>> round(float(w[0]), 6)  # the mean of 0.5 and 0
        0.25
        """
        self._move(True)

    def training_mode(self) -> None:
        """Put the point in which gradients are taken back into the variables; see `evaluation_mode`."""
        self._move(False)

    @property
    def has_two_points(self) -> bool:
        """Whether `evaluation_mode` does anything."""
        return self._evaluating is not None

    @property
    def _is_evaluating(self) -> bool:
        return self._evaluating is not None and int(ops.convert_to_numpy(self._evaluating)) == 1

    def _move(self, evaluating: bool) -> None:
        if self._evaluating is None or self._is_evaluating == evaluating:
            return
        updates, rows = int(ops.convert_to_numpy(self._iterations)), self._rows
        numbers = group_numbers(self._config, [row.path for row in rows])
        for v, row, number in zip(self._trainable_variables, rows, numbers, strict=True):
            rule = self._config.parts[number].rule
            if rule.two_points and row.slots and updates > row.joined:
                slots = tuple(ops.convert_to_tensor(slot) for slot in row.slots.values())
                p = ops.cast(v, compute_dtype(v))
                v.assign(ops.cast(rule.evaluation(p, slots) if evaluating else rule.training(p, slots), v.dtype))
        self._evaluating.assign(int(evaluating))

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
        latest = readings.recent(self._state, length=1)
        values = {name: float(column[0]) if len(column) else np.nan for name, column in latest.statistics.items()}
        skipped, clipped = values.pop("skipped") == 1, values.pop("clipped") == 1
        updates = int(ops.convert_to_numpy(self._iterations))
        return StepRecord(update=max(updates - (not skipped), 0), clipped=clipped, skipped=skipped, **values)

    def recent_updates(self, since: int = 0) -> RecentUpdates:
        """What the last updates did: up to 256, with norms by variable for 64. Reading every so often misses none.

        Args:
            since: number of the first update wanted, counted with the skipped ones.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([1.0, 2.0])])
        >>> optimizer.recent_updates().statistics["gradient_norm"].tolist()
        [5.0]
        """
        if not self.built:
            raise errors.ConfigError("recent_updates: there are none before the first update")
        return readings.recent(self._state, errors.integer("since", since, 0))

    def clipped_share(self) -> float:
        """Share of the last 100 updates in which clipping acted; `nan` where clipping is off.

        >>> import capibara_keras as ck
        >>> ck.SGD().clipped_share()
        nan
        """
        if not self.built or not self._config.clips:
            return float("nan")
        clipped = readings.recent(self._state, length=100).statistics["clipped"]
        return float(np.mean(clipped)) if len(clipped) else float("nan")

    def layer_norms(self) -> dict[str, float]:
        """L2 norm of the last gradient of each layer, before clipping; `nan` where it had none.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([0.0, 0.0], name="w")])
        >>> optimizer.layer_norms()
        {'w': 5.0}
        """
        layers: dict[str, list[float]] = {}
        for row, norm in zip(self._rows if self.built else [], self._latest_gradient_norms(), strict=True):
            known = [] if np.isnan(norm) else [float(norm)]
            layers.setdefault(row.path.rsplit("/", 1)[0], []).extend(known)
        return {layer: sum(x**2 for x in known) ** 0.5 if known else float("nan") for layer, known in layers.items()}

    def _latest_gradient_norms(self) -> np.ndarray:
        """L2 norms of the last update's gradients, one per variable."""
        if not self.built:
            return np.zeros(0)
        norms = readings.recent(self._state, length=1).variable_norms["gradient_norm"]
        return norms[0] if len(norms) else np.full(len(self._rows), np.nan)

    def counters(self) -> dict[str, int]:
        """How many micro-batches were seen, and how many updates were skipped or clipped.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([float("nan")])], [keras.Variable([1.0])])
        >>> optimizer.counters()
        {'micro_steps': 1, 'skipped': 1, 'clipped': 0, 'spikes': 0, 'dropped': 0}
        """
        return readings.counters(self._state) if self.built else dict.fromkeys(pipeline.COUNTERS, 0)

    def raise_if_nonfinite(self) -> None:
        """Raise if the last update was skipped for a gradient that was not finite (`nonfinite="raise"`).

        Raises:
            FloatingPointError: names the variables.
        """
        skips = self.counters()["skipped"]
        if self.built and self.statistics().skipped and skips != self._raised:
            self._set(_raised=skips)  # a call that only adds to the next window does not raise again
            norms = self._latest_gradient_norms()
            bad = [path_of(v) for v, x in zip(self._trainable_variables, norms, strict=True) if np.isinf(x)]
            raise FloatingPointError(
                f"update {int(ops.convert_to_numpy(self._iterations))}: the gradient is not finite in "
                f"{', '.join(bad)}; weights and state are as before"
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
        joined = {row.path: row.joined for row in self._states.rows.values() if row.joined}
        checkpoint.save(self._inventory(), self._config, joined, self._states.frozen, store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the state from one of Keras' stores; before `build`, it is kept until then.

        Raises:
            CheckpointError: the state belongs to other variables or to another algorithm; nothing is written.
        """
        loaded = checkpoint.load(store)
        if loaded is None:
            warnings.warn(f"{self.name}: the file holds no optimizer state; starting afresh", stacklevel=2)
        elif self.built:
            self._restore(*loaded)
        else:
            self._set(_pending=loaded)

    @property
    def has_loaded_state(self) -> bool:
        """Whether state was loaded that waits for `build`."""
        return self._pending is not None

    def _restore(self, description: checkpoint.Description, arrays: Mapping[checkpoint.Key, np.ndarray]) -> None:
        joined = checkpoint.restore(self._inventory(), self._config, description, arrays)
        self._set(_pending=None)
        if self._states.join(joined):
            self._retrace()

    def _inventory(self) -> dict[checkpoint.Key, Variable]:
        """State variables by (name, path of the variable they belong to)."""
        inventory = {("iteration", ""): self._iterations}
        if isinstance(self._learning_rate, keras.Variable):
            inventory["learning_rate", ""] = self._learning_rate
        elif self._rate_multiplier is not None:
            inventory["learning_rate_multiplier", ""] = self._rate_multiplier
        if self._evaluating is not None:
            inventory["evaluating", ""] = self._evaluating
        return inventory | self._states.inventory()


def _checked_weight(weight: Any) -> Any:
    """A weight that is a number, if it is ≥ 0; one that is a tensor as it is."""
    return errors.number("weight", weight, 0) if isinstance(weight, numbers.Real) else weight


def _exactly(path: str) -> str:
    """A pattern for one path. A loaded `Sequential` drops its own name, so the first of three parts is optional."""
    first, _, rest = path.partition("/")
    return f"^({re.escape(first)}/)?{re.escape(rest)}$" if "/" in rest else f"^{re.escape(path)}$"


def _same(stored: float, configured: Any) -> bool:
    return not callable(configured) and stored in (configured, float(np.float32(configured)))


def _form(rule: UpdateRule) -> Any:
    """A rule without its numbers."""
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    inner = _form(values.pop("rule")) if isinstance(rule, Wrapper) else None
    return type(rule), inner, {k: v for k, v in values.items() if not isinstance(v, float)}


def _static(configuration: OptimizerConfig) -> Any:
    """What a compiled step depends on: all but the numbers in the packed hyperparameters."""
    parts = [_form(p.rule) for p in configuration.parts]
    clips = [(type(p.clip), getattr(p.clip, "history_length", 0)) for p in configuration.parts]
    packed = {
        "ema_momentum",
        "lookahead_alpha",
        "weight_decay",
        "gradient_accumulation_steps",
        "clip_method",
        "clip_value",
        "clip_coeff",
        "adaptive_clipping",
        "skip_spikes",
        *config.CLIPS,
    }
    packed |= set(dataclasses.asdict(configuration.rule))
    others = {k: v for k, v in configuration.to_options().items() if k not in packed}
    del others["learning_rate"]
    return parts, clips, configuration.packed_names, configuration.accumulates, others

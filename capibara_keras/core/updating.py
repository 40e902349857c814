"""From gradients to a step of the pipeline that the backend runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from capibara_keras import backend, errors, pipeline
from capibara_keras.arguments import aligned_gradients, checked_variables
from capibara_keras.core.observing import Observing
from capibara_keras.execution import INLINE, Execution
from capibara_keras.pipeline import State
from capibara_keras.plan import Plan
from capibara_keras.planning import make_plan
from capibara_keras.rate import peak_of
from capibara_keras.types import Scalar, Tensor, Variable
from capibara_keras.variables import path_of, scalar_dtype
from capibara_keras.warning import warn

__all__ = ["Updating"]


class Updating(Observing):
    """Applies gradients."""

    def apply(self, grads: Sequence[Tensor | None], trainable_variables: Sequence[Variable] | None = None) -> None:
        """Update variables from gradients, or add a micro-batch to the window.

        Args:
            grads: one gradient per variable; `None` leaves a variable as it is; `IndexedSlices` with equal
                indices are summed.
            trainable_variables: the variables; builds the optimizer on first use. Default: those it was built
                with.

        Raises:
            ConfigError: no gradient at all; lists, shapes or types that do not match.

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
        variables = self._given_variables(trainable_variables)
        if not variables and not list(grads):
            return  # a model without weights
        full = self._aligned(grads, variables)
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

    def _given_variables(self, variables: Sequence[Variable] | None) -> list[Variable]:
        """The variables of a call: those that are given, or those that the optimizer was built with."""
        if variables is not None:
            return checked_variables("apply", variables, "Gradients come first, then variables")
        if not self.built:
            raise errors.ConfigError(
                "apply: gradients without variables, and the optimizer is not built. Give `trainable_variables`, "
                "or call `optimizer.build(variables)` first"
            )
        return list(self._trainable_variables)

    def _aligned(self, grads: Sequence[Tensor | None], variables: list[Variable]) -> list[Tensor | None]:
        """One dense gradient or `None` for each variable that the optimizer was built with; builds it on first use."""
        dense = aligned_gradients("apply", grads, variables)
        if self.built and any(self._var_key(v) not in self._trainable_variables_indices for v in variables):
            if backend.tracing(dense):  # the trace that is being made takes the place of the one before
                self._set(_traced=False)
            with backend.outside_trace():
                self._extend(variables)
        if not self.built or self._pending is not None:
            with backend.outside_trace():
                self.build(self._trainable_variables if self.built else variables)
        absent = [path_of(v) for v, g in zip(variables, dense, strict=True) if g is None]
        if absent:
            warn(f"Gradients do not exist for variables {absent}; they stay as they are")
        full: list[Tensor | None] = [None] * len(self._trainable_variables)
        for v, g in zip(variables, dense, strict=True):
            full[self._get_variable_index(v)] = g
        return full

    def _extend(self, variables: list[Variable]) -> None:
        """Take in variables that the model has gained since `build`."""
        unknown = [v for v in variables if self._var_key(v) not in self._trainable_variables_indices]
        if len(unknown) == len(variables):
            raise errors.ConfigError(
                f"apply: none of the variables {[path_of(v) for v in unknown][:5]} is one that this optimizer was "
                "built with; make an optimizer of its own for another model, or call `optimizer.build(variables)`"
            )
        if not backend.makes_variables():
            raise errors.ConfigError(
                f"apply: the variables {[path_of(v) for v in unknown][:5]} are new, and a function that was traced "
                "before cannot make state for them. Compile the model again after a change of its layers; in a loop of "
                "your own, call `optimizer.build(variables)` first"
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

"""Custom loops: steps, windows of micro-batches, steps without side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from capibara_keras import backend, config, errors
from capibara_keras.arguments import aligned_gradients
from capibara_keras.optimizer.scheduling import Scheduling
from capibara_keras.pipeline import State, update
from capibara_keras.records import StepRecord
from capibara_keras.types import Tensor, Variable

__all__ = ["Stepping"]


class Stepping(Scheduling):
    """Steps by hand."""

    def step(
        self,
        gradients: Sequence[Tensor | None] | Mapping[str, Tensor | None],
        parameters: Sequence[Variable] | Mapping[str, Variable],
        step_number: int | None = None,
        return_metrics: bool = False,
    ) -> StepRecord | None:
        """One update in a loop of one's own.

        Args:
            gradients: one per parameter, as a list, or a dictionary with the parameters' keys.
            parameters: variables, as a list or a dictionary.
            step_number: the step at which the schedule is read; default: the number of updates so far. Bias
                correction always counts the updates that the state has seen.
            return_metrics: measure the norms of parameters and update too, and return the record.

        Returns:
            A `StepRecord`, or `None` without `return_metrics`. With accumulation, a call that only adds to the
            window returns the record of the last update.

        Raises:
            ConfigError: lists that do not match.

        >>> import capibara_keras as ck, keras
        >>> w = keras.Variable([3.0, 4.0])
        >>> optimizer = ck.Optimizer("sgd", learning_rate=0.5)
        >>> record = optimizer.step([keras.ops.array([0.0, 2.0])], [w], return_metrics=True)
        >>> record.gradient_norm, record.parameter_norm, record.update_norm
        (2.0, 5.0, 1.0)
        """
        if isinstance(parameters, Mapping):
            gradients, parameters = _by_name(gradients, parameters)
        if step_number is not None:
            step_number = errors.integer("step_number", step_number, 0)
        self._apply(gradients, parameters, measure=return_metrics, schedule_step=step_number)
        return self.statistics() if return_metrics else None

    def configure_gradient_clipping(self, options: Mapping[str, Any]) -> None:
        """Choose how gradients are clipped; replaces what was set before.

        Args:
            options: `clip_method` ("norm", "value", "adaptive", "agc"), `clip_value`, `per_parameter_clipping`,
                `adaptive_clipping` (`enable`, `percentile`, `history_length`, `min_clip_value`, `max_clip_value`),
                `clip_coeff` and `clip_output_layer` for "agc". Those without effect in the method are kept, and
                `describe` says so.

        Raises:
            ConfigError: a bad option.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam", gradient_clip_norm=1.0)
        >>> optimizer.configure_gradient_clipping({"clip_method": "value", "clip_value": 0.5})
        >>> optimizer.clip_value, optimizer.global_clipnorm
        (0.5, None)
        """
        for name in options:
            if name not in config.CLIPPING:
                raise errors.unknown("clipping option", name, config.CLIPPING)
        self.reconfigure(dict.fromkeys((*config.CLIPPING, *config.CLIPS)) | dict(options))

    def configure_gradient_accumulation(self, options: Mapping[str, Any]) -> None:
        """Choose how micro-batches make up an update.

        Args:
            options: `accumulation_steps`, `normalize_gradients`, `scale_loss` (the loss arrives divided),
                `defer_clip_until_accumulation`, `sync_batchnorm`, `remainder`, `nonfinite`.

        Raises:
            ConfigError: a bad option.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Optimizer("adam")
        >>> optimizer.configure_gradient_accumulation({"accumulation_steps": 16, "normalize_gradients": True})
        >>> optimizer.gradient_accumulation_steps
        16
        """
        for name in options:
            if config.ALIASES.get(name, name) not in config.ACCUMULATION:
                raise errors.unknown(
                    "accumulation option", name, [*config.ACCUMULATION, "accumulation_steps", "scale_loss"]
                )
        self.reconfigure(options)

    def accumulate_gradients(
        self,
        gradients: Sequence[Tensor | None] | Mapping[str, Tensor | None],
        parameters: Sequence[Variable] | Mapping[str, Variable] | None = None,
        weight: Any = None,
    ) -> None:
        """Add a micro-batch to the window. It never updates; `step_with_accumulated_gradients` does.

        Args:
            gradients, parameters: as in `step`.
            weight: in the mean over the window, ≥ 0: the number of tokens, say. Default 1.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.Optimizer("sgd", learning_rate=0.5)
        >>> for g in (1.0, 3.0):
        ...     optimizer.accumulate_gradients([keras.ops.array([g])], [w])
        >>> optimizer.step_with_accumulated_gradients()
        >>> w.numpy().tolist()
        [0.0]
        """
        if isinstance(parameters, Mapping):
            gradients, parameters = _by_name(gradients, parameters)
        self._accumulate(gradients, parameters, weight)

    def step_with_accumulated_gradients(self) -> None:
        """Update with what is in the window, however many micro-batches that are; nothing if there are none."""
        self.flush()

    def zero_grad(self) -> None:
        """Forget what is in the window. After an update it is empty anyway."""
        self._clear_window()

    def functional_state(self) -> State:
        """The state as tensors, for `functional_step`; `state._replace(rate=…)` changes the rate."""
        return keras.tree.map_structure(backend.read, self._state)

    def functional_step(
        self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], state: State
    ) -> tuple[list[Tensor], State]:
        """An update without side effects, which a `GradientTape` or `jax.grad` can differentiate: for meta-learning.

        Args:
            parameters: values of the variables that the optimizer was built with.
            gradients: of the same length.
            state: from `functional_state`, or from the last call.

        Returns:
            New parameters and new state.

        Raises:
            ConfigError: without `differentiable=True`, or before the optimizer is built; lists, shapes or types that
                do not match.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.Optimizer("sgd", learning_rate=0.5, differentiable=True)
        >>> optimizer.build([keras.Variable([1.0])])
        >>> one = keras.ops.array([1.0])
        >>> (w,), state = optimizer.functional_step([one], [one], optimizer.functional_state())
        >>> keras.ops.convert_to_numpy(w).tolist()
        [0.5]
        """
        if not (self.differentiable and self.built):
            raise errors.ConfigError(
                "functional_step: needs differentiable=True, and `optimizer.build(variables)` before"
            )
        variables = self._trainable_variables
        shapes, expected = [tuple(p.shape) for p in parameters], [tuple(v.shape) for v in variables]
        if shapes != expected:
            raise errors.ConfigError(f"functional_step: expected parameters of shapes {expected}, received {shapes}")
        grads = aligned_gradients("functional_step", gradients, variables)
        state = update(self._plan(), state._replace(params=list(parameters)), grads)
        return state.params, state


def _by_name(gradients: Any, parameters: Mapping[str, Variable]) -> tuple[list[Tensor | None], list[Variable]]:
    """Gradients and parameters in the order of the parameters' dictionary."""
    if not isinstance(gradients, Mapping):
        raise errors.ConfigError(f"gradients: expected a dictionary, as parameters is one, received {type(gradients)}")
    if unknown := set(gradients) - set(parameters):
        raise errors.unknown("gradient", sorted(unknown)[0], parameters)
    return [gradients.get(name) for name in parameters], list(parameters.values())

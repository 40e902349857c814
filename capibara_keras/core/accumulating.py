"""The window of micro-batches, from outside."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

from keras import ops

from capibara_keras import backend, errors
from capibara_keras.core.applying import Applying
from capibara_keras.types import Tensor, Variable
from capibara_keras.variables import scalar_dtype
from capibara_keras.warning import warn

__all__ = ["Accumulating"]


class Accumulating(Applying):
    """Adds to the window without an update, weighs, flushes, clears."""

    @backend.unconverted
    def _accumulate(self, grads: Sequence[Tensor | None], variables: Sequence[Variable] | None, weight: Any) -> None:
        """Add a micro-batch to the window, and leave the update to `flush`."""
        if not self._config.accumulates:
            self.reconfigure({"accumulator": True})
        full = self._aligned(grads, self._given_variables(variables))
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

    def let_fit_end(self, may_end: bool) -> None:
        """Whether `fit` may end now, and then use the micro-batches that are left. The callbacks call this."""
        self._set(_fit_may_end=may_end)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """At the end of `fit`, Keras asks for the final weights: with EMA the averages, with two points the one to be
        evaluated. Before that, the micro-batches that are left are used, if a callback of this package is there."""
        if self._fit_may_end and self.remainder == "flush":
            self.flush()
        elif self.remainder == "flush" and self.pending_micro_batches:
            self._warn_once(
                "pending",
                f"{self.pending_micro_batches} micro-batches do not fill a window, and wait for more. Any callback of "
                "capibara_keras uses them at the end of fit, as does optimizer.flush()",
            )
        if self.has_two_points and not self._fit_may_end:
            self._warn_once("points", _WITHOUT_A_CALLBACK)
        self.evaluation_mode()
        if self.use_ema:
            for variable in var_list:
                row = self._state.averages[self._get_variable_index(variable)]
                if row:
                    variable.assign(ops.cast(row[0], variable.dtype))

    def _warn_once(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._set(_warned=self._warned | {what})
            warn(f"{self.name}: {text}")


_WITHOUT_A_CALLBACK = (
    "the model holds the average now, which is to be evaluated and saved. While this fit went on it held the point in "
    "which gradients are taken: validation and checkpoints, if there were any, are of that one. With any callback of "
    "capibara_keras in fit, they are of the average"
)


def _checked_weight(weight: Any) -> Any:
    """A weight that is a number, if it is ≥ 0; one that is a tensor as it is."""
    return errors.number("weight", weight, 0) if isinstance(weight, numbers.Real) else weight

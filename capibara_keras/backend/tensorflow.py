"""TensorFlow: state lives in variables that compiled functions read and write in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Any

from capibara_keras.backend.live import Live
from capibara_keras.backend.primitives import Primitives
from capibara_keras.backend.replicated import Replicated
from capibara_keras.backend.step import Cache, Extra, Grads, Step, changed, full
from capibara_keras.types import Tensor

__all__ = ["TensorFlow"]


class TensorFlow(Primitives):
    """Runs an update on variables that a compiled function reads and writes in place."""

    def run(self, step: Step, grads: Grads, extra: Extra, cache: Cache, key: Hashable) -> None:
        """One call of `apply`: accumulate if there is a window, and update if it is due."""
        if self.tf.distribute.has_strategy():
            replicated = Replicated(self, step, extra)
            self.tf.distribute.get_replica_context().merge_call(replicated.apply, args=tuple(grads))
            return
        missing = tuple(g is None for g in grads)
        if (key, missing) not in cache:
            cache[key, missing] = self._function(step, missing)
        cache[key, missing]([g for g in grads if g is not None], dict(extra))

    def flush(self, step: Step, cache: Cache, key: Hashable) -> None:
        """The update with what is in the window. The variables know their strategy: callbacks run outside its scope."""
        tf = self.tf
        strategy = getattr(self.native(step.variables.counters), "distribute_strategy", None)
        if (key, "flush") not in cache:
            if strategy is not None:
                merge = Replicated(self, step, {}).flush
                call = lambda: tf.distribute.get_replica_context().merge_call(merge)  # noqa: E731
                cache[key, "flush"] = self.traced(lambda: strategy.run(call))
            else:
                cache[key, "flush"] = self._update_function(step, ())
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            cache[key, "flush"](*([] if strategy is not None else [[], {}]))

    def _function(self, step: Step, missing: tuple[bool, ...]) -> Callable[..., None]:
        """Everything that one call of `apply` does, compiled. The condition stays outside XLA, where a branch
        that is not taken costs nothing; inside, it would copy all the state that passes through."""
        tf, window = self.tf, step.window
        update = self._update_function(step, missing)
        if window is None:
            return update
        run = Live(self, step)

        def accumulate(present: list[Tensor], extra: Extra) -> None:
            grads = full(present, missing)
            keep = window.is_finite(grads) if window.is_finite else None
            self._through(step, lambda state: window.accumulate(state, grads, extra, keep, run))

        if step.jit and run.whole:
            accumulate = self.traced(accumulate, jit=True)

        def both(present: list[Tensor], extra: Extra) -> None:
            accumulate(present, extra)
            if window.is_due is not None:
                tf.cond(
                    window.is_due([self.read(v) for v in step.variables.window]),
                    lambda: update([], extra),
                    lambda: None,
                )

        return self.traced(both)

    def _update_function(self, step: Step, missing: tuple[bool, ...]) -> Callable[..., None]:
        run = Live(self, step)

        def update(present: list[Tensor], extra: Extra) -> None:
            grads = None if step.window else full(present, missing)
            self._through(step, lambda state: step.update(state, grads, extra, run))

        return self.traced(update, jit=step.jit and run.whole)

    def _through(self, step: Step, function: Callable[[Any], Any]) -> None:
        """Read what belongs to no single variable, compute, write; the rest `Live` changes in place."""
        old = step.variables.live(self.native, self.read)
        for variable, before, after in changed(step.variables, old, function(old)):
            self.native(variable).assign(self.tf.cast(after, before.dtype))

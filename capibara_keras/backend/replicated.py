"""TensorFlow: an update under a `tf.distribute` strategy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import tree

from capibara_keras.backend.primitives import Primitives
from capibara_keras.backend.step import Extra, Grads, Step, changed
from capibara_keras.types import Scalar, Tensor

__all__ = ["Replicated"]


class Replicated:
    """An update under a `tf.distribute` strategy: one all-reduce, and every replica computes the same update from
    the same sums. Its methods run in the cross-replica context; only there may a collective be conditional."""

    def __init__(self, backend: Primitives, step: Step, extra: Extra) -> None:
        self.backend, self.tf, self.step, self.extra = backend, backend.tf, step, extra

    def apply(self, strategy: Any, *grads: Tensor | None) -> None:
        window = self.step.window
        if window is None:
            self.update(strategy, self.summed(strategy, grads))
            return
        each = strategy.extended.call_for_each_replica
        micro = self.summed(strategy, grads) if window.reduced else list(grads)
        keep = self.unanimous(strategy, micro) if window.is_finite else None
        state = each(self.snapshot)
        self.write(strategy, state, each(self.replica_window, (state, micro, keep)))
        if window.is_due is not None:
            due = each(lambda: window.is_due([self.backend.read(v) for v in self.step.variables.window]))
            first = strategy.experimental_local_results(due)[0]
            self.tf.cond(first, lambda: self.flush(strategy), lambda: None)

    def flush(self, strategy: Any) -> None:
        window = self.step.open_window
        parts = strategy.extended.call_for_each_replica(lambda: window.sums(self.snapshot()))
        self.update(strategy, parts if window.reduced else self.summed(strategy, parts))

    def update(self, strategy: Any, grads: Sequence[Any]) -> None:
        state = strategy.extended.call_for_each_replica(self.snapshot)
        self.write(strategy, state, strategy.extended.call_for_each_replica(self.replica_update, (state, list(grads))))

    def replica_update(self, state: Any, grads: Grads) -> Any:
        call = lambda: self.step.update(state, grads, self.extra, self.step.inline)  # noqa: E731
        return self.backend.traced(call, jit=self.step.jit)()

    def replica_window(self, state: Any, grads: Grads, keep: Scalar | None) -> Any:
        return self.step.open_window.accumulate(state, grads, self.extra, keep, self.step.inline)

    def summed(self, strategy: Any, parts: Sequence[Any]) -> list[Any]:
        """Sums over replicas, in one collective; `None` stays."""
        native = self.backend.native
        present = [(i, g) for i, g in enumerate(parts) if g is not None]
        targets = [(g, native(self.step.variables.params[i])) for i, g in present]
        sums = strategy.extended.batch_reduce_to(self.tf.distribute.ReduceOp.SUM, targets)
        full: list[Any] = [None] * len(parts)
        for (i, _), total in zip(present, sums, strict=True):
            full[i] = total
        return full

    def unanimous(self, strategy: Any, grads: Sequence[Any]) -> Any:
        """Whether the micro-batch is finite on all replicas."""
        tf, window = self.tf, self.step.open_window
        each = strategy.extended.call_for_each_replica

        def bad_here(grads: Grads) -> Scalar:
            assert window.is_finite is not None
            return 1.0 - tf.cast(window.is_finite(grads), "float32")

        bad = each(bad_here, (list(grads),))
        target = self.backend.native(self.step.variables.counters)
        total = strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, bad, target)
        return each(lambda x: tf.equal(x, 0.0), (total,))

    def snapshot(self) -> Any:
        """Copies of this replica's state: a live read would see the writes of the others."""
        return tree.map_structure(lambda v: self.tf.identity(self.backend.read(v)), self.step.variables)

    def write(self, strategy: Any, old: Any, new: Any) -> None:
        def assign(variable: Any, value: Any) -> Any:
            return variable.assign(self.tf.cast(value, variable.dtype))

        for variable, _, after in changed(self.step.variables, old, new):
            strategy.extended.update(self.backend.native(variable), assign, args=(after,), group=False)

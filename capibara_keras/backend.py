"""The only TensorFlow and JAX code: reading, summing over replicas, compiling, writing.

Everything else is `keras.ops`. The functions below are those of the active Keras backend.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree

from capibara_keras.types import Scalar, Tensor, Variable

__all__ = [
    "Step",
    "colocated",
    "compiled",
    "cos",
    "dense",
    "native",
    "outside_trace",
    "read",
    "run",
    "sum_of_squares",
    "tracing",
]


class Step:
    """An update in two pure halves, over a nested structure of variables.

    Args:
        variables: nested structure of variables; its tensors are the first argument of both halves.
        update: `(state, grads, extra) -> state`. `grads` are summed over replicas.
        accumulate: `(state, grads) -> state`, or `None` without accumulation.
        sums: with accumulation, picks from the state what `update` takes as `grads`.
        is_due: with accumulation, whether `update` runs now: state -> boolean scalar.
        local: with accumulation, picks from a state what belongs to each replica alone.
        fused: compile `update` as one; else it compiles its parts itself.
    """

    def __init__(
        self,
        variables: Any,
        update: Callable[[Any, list[Tensor | None], tuple[Tensor, ...]], Any],
        *,
        accumulate: Callable[[Any, list[Tensor | None]], Any] | None = None,
        sums: Callable[[Any], list[Tensor]] | None = None,
        is_due: Callable[[Any], Scalar] | None = None,
        jit: bool = True,
        fused: bool = True,
    ) -> None:
        self.variables, self.update, self.accumulate = variables, update, accumulate
        self.sums, self.is_due, self.jit, self.fused = sums, is_due, jit, fused


class TensorFlow:
    """State lives in variables that a compiled function reads and writes in place."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf = tf

    def read(self, variable: Variable) -> Tensor:
        return self.tf.convert_to_tensor(variable.value if isinstance(variable, keras.Variable) else variable)

    def native(self, variable: Variable) -> Variable:
        return variable.value if isinstance(variable, keras.Variable) else variable

    def dense(self, gradient: Tensor, like: Variable) -> Tensor:
        """`IndexedSlices` with equal indices are summed. Outside the compiled step: no trace per number of rows."""
        gradient = self.tf.convert_to_tensor(gradient)
        return self.tf.ensure_shape(gradient, like.shape)

    def sum_of_squares(self, x: Tensor) -> Scalar:
        """XLA on a CPU turns a sum of squares into a scalar loop; a matrix-vector product it vectorises."""
        squares = self.tf.square(x)
        columns = x.shape[-1] if x.shape.rank and x.shape.rank > 1 else 1024
        if self._accelerated or x.shape.num_elements() < 4096 or x.shape.num_elements() % columns or columns < 8:
            return self.tf.reduce_sum(squares)
        rows = self.tf.reshape(squares, [-1, columns])
        return self.tf.reduce_sum(self.tf.linalg.matvec(rows, self.tf.ones([columns], x.dtype)))

    def cos(self, x: Tensor) -> Tensor:
        return self.tf.cos(x)

    @property
    def _accelerated(self) -> bool:
        return any(d.device_type in ("GPU", "TPU") for d in self.tf.config.list_logical_devices())

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.tf.function(function, jit_compile=True, autograph=False)

    def tracing(self, gradients: Sequence[Tensor]) -> bool:
        return not self.tf.executing_eagerly()

    @contextlib.contextmanager
    def colocated(self, variable: Variable) -> Iterator[None]:
        with self.tf.distribute.get_strategy().extended.colocate_vars_with(self.native(variable)):
            yield

    def outside_trace(self) -> contextlib.AbstractContextManager[None]:
        """Where assignments happen once and now, also when a function is being traced."""
        return self.tf.init_scope()

    def run(
        self, step: Step, grads: list[Tensor | None], extra: tuple[Tensor, ...], cache: dict[Hashable, Any], key: Hashable
    ) -> None:
        if self.tf.distribute.has_strategy():
            self._run_replicated(step, grads, extra)
            return
        present = [g for g in grads if g is not None]
        key = (key, tuple(g is None for g in grads))
        if key not in cache:
            cache[key] = self._function(step, [g is None for g in grads])
        cache[key](present, extra)

    def _function(self, step: Step, missing: list[bool]) -> Callable[..., None]:
        """Everything that one call of `apply` does, compiled. The condition stays outside XLA, where a branch
        that is not taken costs nothing; inside, it would copy all the state that passes through."""
        tf = self.tf

        def all_grads(present: list[Tensor]) -> list[Tensor | None]:
            rest = iter(present)
            return [None if absent else next(rest) for absent in missing]

        def accumulate(present: list[Tensor]) -> None:
            state = self._read_all(step)
            self._write(step.variables, state, step.accumulate(state, all_grads(present)))

        def update(present: list[Tensor], extra: tuple[Tensor, ...]) -> None:
            state = self._read_all(step)
            grads = step.sums(state) if step.accumulate else all_grads(present)
            self._write(step.variables, state, step.update(state, grads, extra))

        def jit(function: Callable[..., None], when: bool) -> Callable[..., None]:
            return tf.function(function, jit_compile=True, autograph=False) if when else function

        update = jit(update, step.jit and step.fused)
        if step.accumulate is None:
            return update if step.jit and step.fused else tf.function(update, autograph=False)
        accumulate = jit(accumulate, step.jit)

        def window(present: list[Tensor], extra: tuple[Tensor, ...]) -> None:
            accumulate(present)
            tf.cond(step.is_due(self._read_all(step)), lambda: update([], extra), lambda: None)

        return tf.function(window, autograph=False)

    def _read_all(self, step: Step) -> Any:
        return tree.map_structure(self.read, step.variables)

    def _write(self, variables: Any, old: Any, new: Any) -> None:
        for variable, before, after in _changed(variables, old, new):
            self.native(variable).assign(self.tf.cast(after, before.dtype))

    def _run_replicated(self, step: Step, grads: list[Tensor | None], extra: tuple[Tensor, ...]) -> None:
        """One all-reduce per update, and every replica computes the same update from the same sums.

        The condition must be in the cross-replica context: a replica cannot wait for the others in a branch.
        """
        tf = self.tf

        def snapshot() -> Any:
            return tree.map_structure(lambda v: tf.identity(self.read(v)), step.variables)

        def update(state: Any, grads: list[Tensor | None]) -> Any:
            call = lambda: step.update(state, grads, extra)  # noqa: E731
            return self.compiled(call)() if step.jit and step.fused else call()

        def write(strategy: Any, old: Any, new: Any) -> None:
            for variable, _, after in _changed(step.variables, old, new):
                assign = lambda v, x: v.assign(tf.cast(x, v.dtype))  # noqa: E731
                strategy.extended.update(self.native(variable), assign, args=(after,), group=False)

        def across(strategy: Any, *grads: Tensor | None) -> None:
            each = strategy.extended.call_for_each_replica

            def reduce_and_update(parts: Sequence[Any]) -> None:
                present = [(i, g) for i, g in enumerate(parts) if g is not None]
                targets = [(g, self.native(step.variables.params[i])) for i, g in present]
                sums = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, targets)
                full: list[Any] = [None] * len(parts)
                for (i, _), total in zip(present, sums, strict=True):
                    full[i] = total
                state = each(snapshot)
                new = each(update, (state, full))
                write(strategy, state, new)

            if step.accumulate is None:
                reduce_and_update(grads)
                return
            state = each(snapshot)
            write(strategy, state, each(step.accumulate, (state, list(grads))))
            after = each(snapshot)
            due = strategy.experimental_local_results(each(step.is_due, (after,)))[0]
            parts = each(step.sums, (after,))
            tf.cond(due, lambda: reduce_and_update(parts), lambda: None)

        tf.distribute.get_replica_context().merge_call(across, args=tuple(grads))


class Functional:
    """State passes through: Keras collects the assignments (JAX), or they happen at once (other backends)."""

    def read(self, variable: Variable) -> Tensor:
        return ops.convert_to_tensor(variable)

    def native(self, variable: Variable) -> Variable:
        return variable

    def dense(self, gradient: Tensor, like: Variable) -> Tensor:
        return ops.convert_to_tensor(gradient, sparse=False)

    def sum_of_squares(self, x: Tensor) -> Scalar:
        return ops.sum(ops.square(x))

    def cos(self, x: Tensor) -> Tensor:
        return ops.cos(x)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def tracing(self, gradients: Sequence[Tensor]) -> bool:
        return False

    @contextlib.contextmanager
    def colocated(self, variable: Variable) -> Iterator[None]:
        yield

    def outside_trace(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def run(
        self, step: Step, grads: list[Tensor | None], extra: tuple[Tensor, ...], cache: dict[Hashable, Any], key: Hashable
    ) -> None:
        def pure(state: Any, grads: list[Tensor | None], extra: tuple[Tensor, ...]) -> Any:
            if step.accumulate is None:
                return step.update(state, grads, extra)
            state = step.accumulate(state, grads)
            return self.cond(step.is_due(state), lambda s: step.update(s, step.sums(s), extra), lambda s: s, state)

        old = tree.map_structure(self.read, step.variables)
        if step.jit and not self.tracing([*tree.flatten(old), *grads]):
            key = (key, tuple(g is None for g in grads))
            pure = cache.setdefault(key, self.compiled(pure))
        for variable, _, after in _changed(step.variables, old, pure(old, grads, extra)):
            variable.assign(after)

    def cond(self, due: Scalar, then: Callable[[Any], Any], otherwise: Callable[[Any], Any], state: Any) -> Any:
        return then(state) if due else otherwise(state)


class Jax(Functional):
    """In Keras' own jit the step is inlined; called eagerly, it is compiled here."""

    def __init__(self) -> None:
        import jax

        self.jax = jax

    def cos(self, x: Tensor) -> Tensor:
        """Keras' own makes float32 of float64."""
        return self.jax.numpy.cos(x)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.jax.jit(function)

    def tracing(self, gradients: Sequence[Tensor]) -> bool:
        return any(isinstance(g, self.jax.core.Tracer) for g in gradients)

    def cond(self, due: Scalar, then: Callable[[Any], Any], otherwise: Callable[[Any], Any], state: Any) -> Any:
        return self.jax.lax.cond(due, then, otherwise, state)


def _changed(variables: Any, old: Any, new: Any) -> Iterator[tuple[Variable, Tensor, Tensor]]:
    """(variable, old value, new value) wherever the step made a new tensor."""
    rows = zip(tree.flatten(variables), tree.flatten(old), tree.flatten(new), strict=True)
    return ((variable, a, b) for variable, a, b in rows if a is not b)


_ACTIVE: Any = {"tensorflow": TensorFlow, "jax": Jax}.get(keras.backend.backend(), Functional)()

read, native, dense = _ACTIVE.read, _ACTIVE.native, _ACTIVE.dense
sum_of_squares, compiled, tracing = _ACTIVE.sum_of_squares, _ACTIVE.compiled, _ACTIVE.tracing
colocated, outside_trace, run, cos = _ACTIVE.colocated, _ACTIVE.outside_trace, _ACTIVE.run, _ACTIVE.cos

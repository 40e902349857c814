"""The only TensorFlow and JAX code: reading, summing over replicas, compiling, writing.

Everything else is `keras.ops`. The functions below are those of the active Keras backend.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
from keras import ops, tree

from capibara_keras.types import Scalar, Tensor, Variable

__all__ = [
    "Step",
    "colocated",
    "compiled",
    "cos",
    "dense",
    "flush",
    "native",
    "outside_trace",
    "read",
    "run",
    "scope",
    "sharded_layout",
    "sum_of_squares",
    "tracing",
    "unconverted",
]

Grads: TypeAlias = list[Tensor | None]
Extra: TypeAlias = Mapping[str, Tensor]
Cache: TypeAlias = dict[Hashable, Any]


@dataclass(frozen=True)
class Window:
    """The halves of an update that accumulation adds; all pure.

    Args:
        accumulate: `(state, grads, extra, keep) -> state`.
        sums: picks from a state what `Step.update` takes as gradients.
        is_due: `window` of the state -> whether the update runs now; `None` for never.
        is_finite: grads -> whether to keep the micro-batch; `None` to keep all.
        reduced: micro-batches are summed over replicas before they are accumulated, not after.
    """

    accumulate: Callable[[Any, Grads, Extra, Scalar | None], Any]
    sums: Callable[[Any], list[Tensor]]
    is_due: Callable[[Any], Scalar] | None
    is_finite: Callable[[Grads], Scalar] | None = None
    reduced: bool = False


@dataclass(frozen=True)
class Step:
    """One call of `apply` as pure functions over a nested structure of variables.

    Args:
        variables: nested structure of variables with `params`, `counters` and `window`; the state is the same
            structure of tensors.
        update: `(state, grads, extra) -> state`, with gradients summed over replicas.
        window: what accumulation adds, or `None`.
        jit: compile with XLA.
        fused: compile `update` as one; else it compiles its parts itself.
    """

    variables: Any
    update: Callable[[Any, Grads, Extra], Any]
    window: Window | None = None
    jit: bool = True
    fused: bool = True

    @property
    def open_window(self) -> Window:
        """The window, where there must be one."""
        assert self.window is not None
        return self.window


class TensorFlow:
    """State lives in variables that a compiled function reads and writes in place."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf = tf

    def read(self, variable: Variable) -> Tensor:
        """The variable's value, not copied: on TensorFlow it may be the live one."""
        return self.tf.convert_to_tensor(self.native(variable))

    def native(self, variable: Variable) -> Variable:
        """What a `keras.Variable` wraps; others as they are."""
        return variable.value if isinstance(variable, keras.Variable) else variable

    def dense(self, gradient: Tensor, like: Variable) -> Tensor:
        """`IndexedSlices` with equal indices are summed. Outside the compiled step: no trace per number of rows."""
        return self.tf.ensure_shape(self.tf.convert_to_tensor(gradient), like.shape)

    def sum_of_squares(self, x: Tensor) -> Scalar:
        """XLA on a CPU turns a sum of squares into a scalar loop; a matrix-vector product it vectorises."""
        squares, size = self.tf.square(x), x.shape.num_elements()
        columns = x.shape[-1] if x.shape.rank > 1 else 1024
        if size < 4096 or size % columns or columns < 8 or self._accelerated:
            return self.tf.reduce_sum(squares)
        rows = self.tf.reshape(squares, [-1, columns])
        return self.tf.reduce_sum(self.tf.linalg.matvec(rows, self.tf.ones([columns], x.dtype)))

    def cos(self, x: Tensor) -> Tensor:
        """The cosine, in the dtype of x."""
        return self.tf.cos(x)

    @property
    def _accelerated(self) -> bool:
        return any(device.device_type != "CPU" for device in self.tf.config.list_logical_devices())

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A pure function, compiled with XLA."""
        return self.traced(function, jit=True)

    def traced(self, function: Callable[..., Any], *, jit: bool = False) -> Callable[..., Any]:
        """A graph function. Each optimizer makes its own of the same code: not the retracing TensorFlow warns of."""
        result = self.tf.function(function, autograph=False, jit_compile=True if jit else None)
        result._omit_frequent_tracing_warning = True
        return result

    def unconverted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that AutoGraph leaves alone in a user's `tf.function`: rewriting this package takes seconds."""
        return self.tf.autograph.experimental.do_not_convert(function)

    def tracing(self, gradients: Sequence[Tensor]) -> bool:
        """Whether an outer function is being traced."""
        return not self.tf.executing_eagerly()

    def outside_trace(self) -> contextlib.AbstractContextManager[None]:
        """Where assignments happen once and now, also when a function is being traced."""
        return self.tf.init_scope()

    def scope(self, optimizer: Any) -> contextlib.AbstractContextManager[Any]:
        """The strategy that the optimizer was made under, also where it is built outside of its scope."""
        strategy, here = optimizer._distribution_strategy, self.tf.distribute.get_strategy()
        return contextlib.nullcontext() if strategy is here else strategy.scope()

    @contextlib.contextmanager
    def colocated(self, variable: Variable) -> Iterator[None]:
        """Where a variable that is made inside lies beside another one."""
        with self.tf.distribute.get_strategy().extended.colocate_vars_with(self.native(variable)):
            yield

    def sharded_layout(self, shape: tuple[int, ...], layout: Any) -> Any:
        """The layout of state for a variable with this layout; only JAX can spread it over devices."""
        return layout

    def run(self, step: Step, grads: Grads, extra: Extra, cache: Cache, key: Hashable) -> None:
        """One call of `apply`: accumulate if there is a window, and update if it is due."""
        if self.tf.distribute.has_strategy():
            replicated = _Replicated(self, step, extra)
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
                merge = _Replicated(self, step, {}).flush
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

        def accumulate(present: list[Tensor], extra: Extra) -> None:
            state, grads = self._read_all(step), _full(present, missing)
            keep = window.is_finite(grads) if window.is_finite else None
            self._write(step, state, window.accumulate(state, grads, extra, keep))

        if step.jit:
            accumulate = self.compiled(accumulate)

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
        def update(present: list[Tensor], extra: Extra) -> None:
            state = self._read_all(step)
            grads = step.window.sums(state) if step.window else _full(present, missing)
            self._write(step, state, step.update(state, grads, extra))

        return self.traced(update, jit=step.jit and step.fused)

    def _read_all(self, step: Step) -> Any:
        return tree.map_structure(self.read, step.variables)

    def _write(self, step: Step, old: Any, new: Any) -> None:
        for variable, before, after in _changed(step.variables, old, new):
            self.native(variable).assign(self.tf.cast(after, before.dtype))


class _Replicated:
    """An update under a `tf.distribute` strategy: one all-reduce, and every replica computes the same update from
    the same sums. Its methods run in the cross-replica context; only there may a collective be conditional."""

    def __init__(self, backend: TensorFlow, step: Step, extra: Extra) -> None:
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
        self.write(strategy, state, each(window.accumulate, (state, micro, self.extra, keep)))
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
        call = lambda: self.step.update(state, grads, self.extra)  # noqa: E731
        return self.backend.compiled(call)() if self.step.jit and self.step.fused else call()

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

        for variable, _, after in _changed(self.step.variables, old, new):
            strategy.extended.update(self.backend.native(variable), assign, args=(after,), group=False)


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

    def unconverted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def tracing(self, gradients: Sequence[Tensor]) -> bool:
        return False

    def outside_trace(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def scope(self, optimizer: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def colocated(self, variable: Variable) -> Iterator[None]:
        yield

    def sharded_layout(self, shape: tuple[int, ...], layout: Any) -> Any:
        return layout

    def run(self, step: Step, grads: Grads, extra: Extra, cache: Cache, key: Hashable) -> None:
        window = step.window

        def pure(state: Any, grads: Grads, extra: Extra) -> Any:
            if window is None:
                return step.update(state, grads, extra)
            state = window.accumulate(state, grads, extra, window.is_finite(grads) if window.is_finite else None)
            if window.is_due is None:
                return state
            return self.cond(
                window.is_due(state.window), lambda s: step.update(s, window.sums(s), extra), lambda s: s, state
            )

        self._through(pure, step, grads, extra, cache, (key, tuple(g is None for g in grads)))

    def flush(self, step: Step, cache: Cache, key: Hashable) -> None:
        def pure(state: Any, grads: Grads, extra: Extra) -> Any:
            return step.update(state, step.open_window.sums(state), extra)

        self._through(pure, step, [], {}, cache, (key, "flush"))

    def _through(
        self, pure: Callable[..., Any], step: Step, grads: Grads, extra: Extra, cache: Cache, key: Hashable
    ) -> None:
        """Read, compute, write; compiled here unless an outer function is being compiled."""
        old = tree.map_structure(self.read, step.variables)
        if step.jit and not self.tracing([*tree.flatten(old), *grads]):
            pure = cache.setdefault(key, self.compiled(pure))
        for variable, _, after in _changed(step.variables, old, pure(old, grads, dict(extra))):
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

    def sharded_layout(self, shape: tuple[int, ...], layout: Any) -> Any:
        """`layout` with the first free axis that divides spread over the data-parallel devices."""
        distribution = keras.distribution.distribution()
        if distribution is None:
            return layout
        mesh, name = distribution.device_mesh, distribution.batch_dim_name
        size = mesh.shape[mesh.axis_names.index(name)]
        axes = list(layout.axes) if layout is not None else [None] * len(shape)
        free = [i for i, (axis, n) in enumerate(zip(axes, shape, strict=True)) if axis is None and n % size == 0]
        if not free:
            return layout
        axes[free[0]] = name
        return keras.distribution.TensorLayout(axes, mesh)

    def cond(self, due: Scalar, then: Callable[[Any], Any], otherwise: Callable[[Any], Any], state: Any) -> Any:
        return self.jax.lax.cond(due, then, otherwise, state)


def _full(present: list[Tensor], missing: Sequence[bool]) -> Grads:
    """Gradients with `None` put back where one is missing."""
    rest = iter(present)
    return [None if absent else next(rest) for absent in missing]


def _changed(variables: Any, old: Any, new: Any) -> Iterator[tuple[Variable, Tensor, Tensor]]:
    """(variable, old value, new value) wherever the step made a new tensor."""
    rows = zip(tree.flatten(variables), tree.flatten(old), tree.flatten(new), strict=True)
    return ((variable, a, b) for variable, a, b in rows if a is not b)


_ACTIVE: Any = {"tensorflow": TensorFlow, "jax": Jax}.get(keras.backend.backend(), Functional)()

read, native, dense = _ACTIVE.read, _ACTIVE.native, _ACTIVE.dense
sum_of_squares, compiled, tracing = _ACTIVE.sum_of_squares, _ACTIVE.compiled, _ACTIVE.tracing
colocated, outside_trace, scope = _ACTIVE.colocated, _ACTIVE.outside_trace, _ACTIVE.scope
sharded_layout, unconverted = _ACTIVE.sharded_layout, _ACTIVE.unconverted
run, flush, cos = _ACTIVE.run, _ACTIVE.flush, _ACTIVE.cos

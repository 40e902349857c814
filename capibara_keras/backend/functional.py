"""Backends where state passes through a function: JAX, and whatever else Keras runs on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from capibara_keras.backend.step import Cache, Extra, Grads, Step, changed
from capibara_keras.types import Scalar, Tensor, Variable

__all__ = ["Functional", "Jax"]


class Functional:
    """State passes through: Keras collects the assignments (JAX), or they happen at once (other backends)."""

    def read(self, variable: Variable) -> Tensor:
        return ops.convert_to_tensor(variable)

    def native(self, variable: Variable) -> Variable:
        return variable

    def fetch(self, variable: Variable) -> np.ndarray:
        return np.asarray(ops.convert_to_numpy(variable))

    def dense(self, gradient: Tensor, like: Variable) -> Tensor:
        return ops.convert_to_tensor(gradient, sparse=False)

    def inner(self, x: Tensor, y: Tensor) -> Scalar:
        return ops.sum(x * y)

    def cos(self, x: Tensor) -> Tensor:
        return ops.cos(x)

    def compiled(self, function: Callable[..., Any], donates: bool) -> Callable[..., Any]:
        return function

    def unconverted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def tracing(self, gradients: Sequence[Tensor]) -> bool:
        return False

    def outside_trace(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def makes_variables(self) -> bool:
        return True

    def scope(self, optimizer: Any) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def colocated(self, variable: Variable) -> Iterator[None]:
        yield

    def sharded_layout(self, shape: tuple[int, ...], layout: Any) -> Any:
        return layout

    def observes(self, loss: Tensor) -> bool:
        return False

    def distributed(self, model: Any) -> bool:
        return keras.distribution.distribution() is not None

    def replicas(self, optimizer: Any) -> int:
        return 1

    def in_replica(self) -> bool:
        return False

    def run(self, step: Step, grads: Grads, extra: Extra, cache: Cache, key: Hashable) -> None:
        window = step.window

        def pure(state: Any, grads: Grads, extra: Extra) -> Any:
            if window is None:
                return step.update(state, grads, extra, step.inline)
            keep = window.is_finite(grads) if window.is_finite else None
            state = window.accumulate(state, grads, extra, keep, step.inline)
            if window.is_due is None:
                return state
            due = window.is_due(state.window)
            return self.cond(due, lambda: step.update(state, None, extra, step.inline), lambda: state)

        self._through(pure, step, grads, extra, cache, (key, tuple(g is None for g in grads)))

    def flush(self, step: Step, cache: Cache, key: Hashable) -> None:
        def pure(state: Any, grads: Grads, extra: Extra) -> Any:
            return step.update(state, None, extra, step.inline)

        self._through(pure, step, [], {}, cache, (key, "flush"))

    def _through(
        self, pure: Callable[..., Any], step: Step, grads: Grads, extra: Extra, cache: Cache, key: Hashable
    ) -> None:
        """Read, compute, write; compiled here unless an outer function is being compiled."""
        old = tree.map_structure(self.read, step.variables)
        if step.jit and not self.tracing([*tree.flatten(old), *grads]):
            if key not in cache:
                cache[key] = self.compiled(pure, step.donates)
            pure = cache[key]
        for variable, _, after in changed(step.variables, old, pure(old, grads, dict(extra))):
            variable.assign(after)

    def cond(self, due: Scalar, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        return then() if due else otherwise()


class Jax(Functional):
    """In Keras' own jit the step is inlined; called eagerly, it is compiled here."""

    def __init__(self) -> None:
        import jax

        self.jax = jax

    def cos(self, x: Tensor) -> Tensor:
        """Keras' own makes float32 of float64."""
        return self.jax.numpy.cos(x)

    def compiled(self, function: Callable[..., Any], donates: bool) -> Callable[..., Any]:
        """Compiled, and with `donates` in the memory of the optimizer's own state. Not in that of the weights: the
        caller may still hold the arrays that the gradients were taken with."""

        def split(own: Any, others: Any, grads: Grads, extra: Extra) -> Any:
            return function(others._replace(**own), grads, extra)

        compiled = self.jax.jit(split, donate_argnums=0 if donates else ())

        def call(state: Any, grads: Grads, extra: Extra) -> Any:
            own = {name: getattr(state, name) for name in ("slots", "averages", "accumulators")}
            return compiled(own, state._replace(**dict.fromkeys(own, ())), grads, extra)

        return call

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

    def cond(self, due: Scalar, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        return self.jax.lax.cond(due, then, otherwise)

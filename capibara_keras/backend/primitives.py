"""TensorFlow: reading, compiling, and where variables lie."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from capibara_keras.types import Scalar, Tensor, Variable

__all__ = ["Primitives"]


class Primitives:
    """What the TensorFlow backend does, besides running an update."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf = tf

    def read(self, variable: Variable) -> Tensor:
        """The variable's value, not copied: on TensorFlow it may be the live one."""
        return self.tf.convert_to_tensor(self.native(variable))

    def native(self, variable: Variable) -> Variable:
        """What a `keras.Variable` wraps; others as they are."""
        return variable.value if isinstance(variable, keras.Variable) else variable

    def fetch(self, variable: Variable) -> np.ndarray:
        """The variable's value on the host. The plain operation takes a sixth of the time of Keras' conversion, which a
        monitor of a small model would notice."""
        v = self.native(variable)
        if (
            not isinstance(v, self.tf.Variable)
            or isinstance(v, self.tf.distribute.DistributedValues)
            or v.dtype == self.tf.bfloat16
        ):
            return np.asarray(keras.ops.convert_to_numpy(variable))
        return np.asarray(self.tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=v.dtype).numpy())

    def dense(self, gradient: Tensor, like: Variable) -> Tensor:
        """`IndexedSlices` with equal indices are summed. Outside the compiled step: no trace per number of rows.

        A shape that is not known while tracing is checked at run time; one that is known, by the caller."""
        if isinstance(gradient, self.tf.IndexedSlices):
            gradient = self.tf.IndexedSlices(gradient.values, gradient.indices, like.shape.as_list())
        result = self.tf.convert_to_tensor(gradient)
        known = result.shape.is_fully_defined() or not result.shape.is_compatible_with(like.shape)
        return result if known else self.tf.ensure_shape(result, like.shape)

    def inner(self, x: Tensor, y: Tensor) -> Scalar:
        """XLA on a CPU turns a sum of products into a scalar loop; a matrix-vector product it vectorises."""
        products, size = x * y, x.shape.num_elements()
        columns = x.shape[-1] if x.shape.rank > 1 else 1024
        if size < 4096 or size % columns or columns < 8 or self._accelerated:
            return self.tf.reduce_sum(products)
        rows = self.tf.reshape(products, [-1, columns])
        return self.tf.reduce_sum(self.tf.linalg.matvec(rows, self.tf.ones([columns], x.dtype)))

    def cond(self, due: Scalar, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """What `then()` or `otherwise()` returns."""
        return self.tf.cond(due, then, otherwise)

    def cos(self, x: Tensor) -> Tensor:
        """The cosine, in the dtype of x."""
        return self.tf.cos(x)

    @property
    def _accelerated(self) -> bool:
        return any(device.device_type != "CPU" for device in self.tf.config.list_logical_devices())

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

    def makes_variables(self) -> bool:
        """Whether variables can be made here, outside of the trace: not while a function is traced a second time."""
        try:
            with self.outside_trace():
                self.tf.Variable(0.0)
        except ValueError:
            return False
        return True

    def scope(self, optimizer: Any) -> contextlib.AbstractContextManager[Any]:
        """The strategy that the optimizer was made under, also where it is built outside of its scope."""
        strategy, here = optimizer._distribution_strategy, self.tf.distribute.get_strategy()
        return contextlib.nullcontext() if strategy is here else strategy.scope()

    @contextlib.contextmanager
    def colocated(self, variable: Variable) -> Iterator[None]:
        """Where a variable that is made inside lies beside another one."""
        with self.tf.distribute.get_strategy().extended.colocate_vars_with(self.native(variable)):
            yield

    def observes(self, loss: Tensor) -> bool:
        """Whether `scale_loss` may keep the loss: a scalar, of the only replica. Where losses pass through a function
        that is differentiated as a whole, as on JAX, they would leak out of it."""
        return self.tf.is_tensor(loss) and loss.shape.rank == 0 and not self.tf.distribute.has_strategy()

    def distributed(self, model: Any) -> bool:
        """Whether the model belongs to a strategy, or one is in scope."""
        return self.tf.distribute.has_strategy() or model.distribute_strategy is not self.tf.distribute.get_strategy()

    def replicas(self, optimizer: Any) -> int:
        """How many replicas the optimizer was made for."""
        return int(optimizer._distribution_strategy.num_replicas_in_sync)

    def in_replica(self) -> bool:
        """Whether this is one of several replicas, which must not write what they share."""
        return self.tf.distribute.has_strategy() and not self.tf.distribute.in_cross_replica_context()

    def sharded_layout(self, shape: tuple[int, ...], layout: Any) -> Any:
        """The layout of state for a variable with this layout; only JAX can spread it over devices."""
        return layout

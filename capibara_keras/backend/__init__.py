"""The only TensorFlow and JAX code: reading, summing over replicas, compiling, writing.

Everything else is `keras.ops`. The functions below are those of the active Keras backend.
"""

from __future__ import annotations

from typing import Any

import keras

from capibara_keras.backend.functional import Functional, Jax
from capibara_keras.backend.step import Step, Window
from capibara_keras.backend.tensorflow import TensorFlow

__all__ = [
    "Step",
    "Window",
    "colocated",
    "cond",
    "cos",
    "dense",
    "distributed",
    "fetch",
    "flush",
    "in_replica",
    "inner",
    "makes_variables",
    "native",
    "observes",
    "outside_trace",
    "read",
    "replicas",
    "run",
    "scope",
    "sharded_layout",
    "sum_of_squares",
    "tracing",
    "unconverted",
]

_ACTIVE: Any = {"tensorflow": TensorFlow, "jax": Jax}.get(keras.backend.backend(), Functional)()

read, native, dense, fetch = _ACTIVE.read, _ACTIVE.native, _ACTIVE.dense, _ACTIVE.fetch
inner, tracing, makes_variables = _ACTIVE.inner, _ACTIVE.tracing, _ACTIVE.makes_variables
colocated, outside_trace, scope = _ACTIVE.colocated, _ACTIVE.outside_trace, _ACTIVE.scope
sharded_layout, unconverted = _ACTIVE.sharded_layout, _ACTIVE.unconverted
run, flush, cos, cond = _ACTIVE.run, _ACTIVE.flush, _ACTIVE.cos, _ACTIVE.cond
observes, in_replica = _ACTIVE.observes, _ACTIVE.in_replica
distributed, replicas = _ACTIVE.distributed, _ACTIVE.replicas


def sum_of_squares(x: Any) -> Any:
    """The square of the L2 norm."""
    return inner(x, x)

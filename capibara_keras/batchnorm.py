"""`BatchNormalization` beside accumulation and replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.records import Record

__all__ = ["BatchNormChange", "sync_batchnorm"]


@dataclass(frozen=True, eq=False)
class BatchNormChange(Record):
    """What `sync_batchnorm` did to a layer."""

    layer: str
    synchronized: bool
    momentum: float
    momentum_before: float


def sync_batchnorm(model: Any, accumulation_steps: int = 1, *, synchronize: bool = True) -> list[BatchNormChange]:
    """Make `BatchNormalization` layers pool over replicas, and decay per window of micro-batches.

    With K micro-batches per update the momentum becomes momentum^(1/K), so that a window moves the running
    statistics as far as one large batch. The statistics that a micro-batch is normalised with remain its own:
    an optimizer cannot pool them. Call it before the model is trained; calling again starts from the layers' first
    momentum, which is also the one in a saved model and in copies.

    Args:
        accumulation_steps: K, ≥ 1.
        synchronize: set `synchronized=True`, which Keras has on TensorFlow only; elsewhere it is left alone.

    Returns:
        What changed, a record per layer.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization(momentum=0.81)])
    >>> sync_batchnorm(model, accumulation_steps=2)[0].momentum
    0.9
    """
    k = errors.integer("accumulation_steps", accumulation_steps, 1)
    changes = []
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            if not hasattr(layer, "_momentum_per_update"):
                _keep_first_momentum(layer)
            before = layer.momentum
            layer.momentum = layer._momentum_per_update ** (1 / k)
            if synchronize and keras.backend.backend() == "tensorflow":
                layer.synchronized = True
            changes.append(BatchNormChange(layer.name, bool(layer.synchronized), layer.momentum, before))
    return changes


def _keep_first_momentum(layer: Any) -> None:
    """Have the layer remember its momentum, and save that one: it will be adjusted again where the model is loaded."""
    layer._momentum_per_update, config = layer.momentum, layer.get_config
    layer.get_config = lambda: config() | {"momentum": layer._momentum_per_update}

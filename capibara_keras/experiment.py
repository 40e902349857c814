"""What an experiment on a model needs before it begins: a model that can be put back, and data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import keras
import numpy as np

from capibara_keras import backend, errors
from capibara_keras.types import Variable
from capibara_keras.unwrap import optimizers_of

__all__ = ["Batch", "checked_data", "checked_model", "cut", "endless", "movable", "rows"]

Batch: TypeAlias = tuple[Any, Any, Any]
"""x, y and sample weights, each an array, nested arrays, or `None`."""


def checked_model(what: str, model: Any) -> keras.Model:
    """`model`, if its loss can be computed and it can be put back.

    Args:
        what: asks for it.

    Raises:
        ConfigError: it is no Keras model, not built, not compiled, has no loss, belongs to a distribution strategy, is
            within a window of micro-batches, or this is inside a function that is being traced.
    """
    if not isinstance(model, keras.Model):
        raise errors.ConfigError(f"{what}: expected a keras.Model, received {model!r}")
    if backend.tracing(()):
        raise errors.ConfigError(f"{what}: it writes weights, and cannot be called inside a tf.function")
    if not model.built:
        raise errors.ConfigError(
            f"{what}: {model.name} has no weights yet; call it on a batch, or `model.build`, first"
        )
    own_loss = any(
        getattr(type(model), name) is not getattr(keras.Model, name) for name in ("compute_loss", "test_step")
    )
    if not model.compiled or (model.loss is None and not own_loss and not model.losses):
        raise errors.ConfigError(f"{what}: {model.name} has no loss; call `model.compile(optimizer, loss)` first")
    if backend.distributed(model):
        raise errors.ConfigError(
            f"{what}: {model.name} belongs to a distribution strategy. Make the same model outside of its scope, and "
            "give it the weights: `copy.set_weights(model.get_weights())`"
        )
    for optimizer in optimizers_of(model.optimizer):
        if optimizer.pending_micro_batches:
            raise errors.ConfigError(
                f"{what}: {optimizer.name} is within a window, {optimizer.pending_micro_batches} micro-batches wait "
                "for an update; call it after one, or call `optimizer.flush()` first"
            )
    return model


def checked_data(x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
    """Arrays of one length, in Keras' float type.

    Raises:
        ConfigError: no arrays, none at all, or of several lengths.
    """
    parts = []
    for name, part in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        leaves = [] if part is None else keras.tree.flatten(part)
        if (name == "x" and not leaves) or not all(len(getattr(leaf, "shape", ())) for leaf in leaves):
            raise errors.ConfigError(
                f"{name}: expected an array, or nested arrays, with an axis of samples, received "
                f"{type(part).__name__}. A batch of a dataset: `x, y = next(iter(dataset))`"
            )
        parts.append(None if part is None else keras.tree.map_structure(_array, part))
    lengths = sorted({len(leaf) for leaf in keras.tree.flatten([part for part in parts if part is not None])})
    if len(lengths) != 1 or lengths == [0]:
        raise errors.ConfigError(f"x, y: expected arrays of one length above 0, received lengths {lengths}")
    return parts[0], parts[1], parts[2]


def movable(model: Any) -> list[Variable]:
    """The trainable variables, without those that are scales of float8 layers, whose gradient is their next value."""
    return [v for v in model.trainable_variables if not getattr(v, "overwrite_with_gradient", False)]


def rows(batch: Batch) -> int:
    """Number of samples."""
    return len(keras.tree.flatten(batch[0])[0])


def cut(batch: Batch, chosen: Any) -> Batch:
    """Some samples of a batch.

    Args:
        chosen: slice, or indices.
    """
    x, y, weights = (None if p is None else keras.tree.map_structure(lambda a: a[chosen], p) for p in batch)
    return x, y, weights


def endless(x: Any, y: Any, sample_weight: Any, batch_size: int, seed: int) -> Iterator[Batch]:
    """Batches for training, again and again: of arrays in a new order each time, the last ones left out where they do
    not fill a batch; of a dataset as it gives them.

    Raises:
        ConfigError: no data, or data that could be iterated only once.
    """
    if y is None and not hasattr(x, "shape") and isinstance(x, Iterator):
        raise errors.ConfigError(
            "x: a generator can be iterated only once, and training would miss what is used here. Give a dataset, a "
            "list of batches, or arrays"
        )
    if y is None and not hasattr(x, "shape") and (isinstance(x, (Iterable, keras.utils.PyDataset))):
        return _of_dataset(x)
    return _of_arrays(checked_data(x, y, sample_weight), batch_size, seed)


def _of_arrays(data: Batch, batch_size: int, seed: int) -> Iterator[Batch]:
    generator, n = np.random.default_rng(seed), rows(data)
    size = min(batch_size, n)
    while True:
        order = generator.permutation(n)
        for start in range(0, n - size + 1, size):
            yield cut(data, order[start : start + size])


def _of_dataset(dataset: Any) -> Iterator[Batch]:
    while True:
        found = 0
        of_keras = isinstance(dataset, keras.utils.PyDataset)
        for item in (dataset[i] for i in range(len(dataset))) if of_keras else dataset:
            found += 1
            x, y, weights = keras.utils.unpack_x_y_sample_weight(item)
            x, y, weights = (None if p is None else keras.tree.map_structure(_array, p) for p in (x, y, weights))
            yield x, y, weights
        if not found:
            raise errors.ConfigError("x: the dataset holds no batch")


def _array(x: Any) -> Any:
    """As NumPy array; floats in Keras' float type, so that no other function has to be traced than in `fit`. What is
    no array (a sparse tensor, say) as it is."""
    if not hasattr(x, "__array__"):
        return x
    array = np.asarray(x)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array

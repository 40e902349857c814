"""Data as users have them, in a form that every trial can begin anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from capibara_keras.errors import ConfigError
from capibara_keras.tuning.batches import Again, Batches, Kept, chained

__all__ = ["Validation", "training", "validation"]


@dataclass(frozen=True)
class Validation:
    """What a trial is evaluated on.

    Args:
        data: as `fit` takes it.
        steps: batches of an evaluation; `None` for all.
        batch_size: of arrays; `None` for data that come in batches.
    """

    data: Any
    steps: int | None
    batch_size: int | None

    @property
    def fit_options(self) -> dict[str, Any]:
        """Arguments of `fit`."""
        options = {"validation_data": self.data, "validation_steps": self.steps}
        return options | ({} if self.batch_size is None else {"validation_batch_size": self.batch_size})

    def one_batch(self, model: keras.Model) -> dict[str, Any]:
        """Names and values of the metrics that a model has on the first batch. Builds a model that is not."""
        parts = self.data if isinstance(self.data, tuple) else (self.data,)
        given = dict(zip(("x", "y", "sample_weight"), parts, strict=False))
        try:
            return dict(model.evaluate(**given, batch_size=self.batch_size, steps=1, verbose=0, return_dict=True))
        except Exception as error:
            error.add_note("The model was evaluated on the first batch of val_dataset.")
            raise


def training(data: Any, batch_size: int, length: int, seed: int) -> Callable[[], Any]:
    """What makes the training data of a trial: at least `length` batches.

    Args:
        data: arrays (x, y) or (x, y, sample weights), or one array; a `tf.data.Dataset`, a `keras.utils.PyDataset`,
            any iterable of batches that can be iterated again; or a function without arguments that returns one of
            these, or a generator: it is called for every trial.

    Raises:
        ConfigError: a generator itself, which only one trial could use; no data.
    """
    if _is_function(data):
        return lambda: _endless(data(), batch_size, length, seed, data)
    if isinstance(data, Iterator):  # used up once it was iterated
        raise ConfigError(f"train_dataset: {_ONCE.format(data=data)}")
    made = _endless(data, batch_size, length, seed, None)  # errors now, not in the first trial
    if isinstance(made, Iterator):
        next(made)
    return lambda: _endless(data, batch_size, length, seed, None)


def validation(data: Any, steps: int | None, batch_size: int) -> Validation:
    """What a trial is evaluated on.

    Args:
        data: as in `training`; what a function returns is kept in memory if it is a generator.
        steps: at most so many batches, `None` for all.
        batch_size: of arrays.

    Raises:
        ConfigError: a generator itself; data without an end, or without a batch.
    """
    if _is_function(data):
        data = data()
    elif isinstance(data, Iterator):
        raise ConfigError(f"val_dataset: {_ONCE.format(data=data)}")
    arrays = _arrays("val_dataset", data)
    if arrays is not None:
        return Validation(arrays if len(arrays) > 1 else arrays[0], steps, batch_size)
    if _is_tf(data):
        if steps is None and int(data.cardinality()) == -1:
            raise ConfigError("val_dataset: it never ends; give validation_steps, or use .take(n)")
        return Validation(data, steps, None)
    if isinstance(data, keras.utils.PyDataset):
        return Validation(data, steps, None)
    if not isinstance(data, Iterable):
        raise ConfigError(f"val_dataset: {_EXPECTED}, received {data!r}")
    batches = list(itertools.islice(data, steps))
    if not batches:
        raise ConfigError("val_dataset: it holds no batch")
    return Validation(Kept(batches), steps, None)


_ONCE = (
    "{data!r} can be iterated only once, and every trial must see the same data. Give the function that makes it: "
    "`lambda: generator()`"
)
_EXPECTED = "expected arrays (x, y), a tf.data.Dataset, a PyDataset, an iterable of batches, or a function"


def _endless(data: Any, batch_size: int, length: int, seed: int, again: Callable[[], Any] | None) -> Any:
    arrays = _arrays("train_dataset", data)
    if arrays is not None:
        return Batches(arrays, batch_size, length, seed)
    if _is_tf(data):
        return data.repeat()
    if isinstance(data, keras.utils.PyDataset):
        return Again(data, length)
    if not isinstance(data, Iterable):
        raise ConfigError(f"train_dataset: {_EXPECTED}, received {data!r}")
    return chained(data, again)


def _is_function(data: Any) -> bool:
    return callable(data) and not hasattr(data, "__iter__") and not isinstance(data, keras.utils.PyDataset)


def _is_tf(data: Any) -> bool:
    return hasattr(data, "element_spec") and hasattr(data, "repeat")


def _arrays(name: str, data: Any) -> tuple[Any, ...] | None:
    """(x, …) if these are arrays; `None` for batches: a list, or anything else that gives them."""
    if isinstance(data, list) and data and all(hasattr(item, "shape") for item in data):
        raise ConfigError(f"{name}: {_EXPECTED}, received a list of arrays. Arrays are in a tuple: (x, y)")
    if isinstance(data, list) or (isinstance(data, tuple) and not 1 <= len(data) <= 3):
        return None
    parts = [part for part in (data if isinstance(data, tuple) else (data,)) if part is not None]
    if all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(parts)) and parts:
        arrays = tuple(keras.tree.map_structure(np.asarray, part) for part in parts)
        lengths = {a.shape[0] if a.shape else 0 for a in keras.tree.flatten(arrays)}
        if len(lengths) != 1 or lengths == {0}:
            raise ConfigError(f"{name}: expected arrays of one length, received lengths {sorted(lengths)}")
        return arrays
    if isinstance(data, tuple):
        kinds = ", ".join(type(part).__name__ for part in data)
        raise ConfigError(f"{name}: {_EXPECTED}, received a tuple of {kinds}; make arrays of them with np.asarray")
    return None

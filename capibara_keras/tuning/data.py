"""Data as users have it, in a form that every trial can begin anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from capibara_keras.errors import ConfigError

__all__ = ["Batches", "training", "validation"]


class Batches(keras.utils.PyDataset):
    """Batches of arrays, shuffled anew in each epoch; every instance in the same order.

    Args:
        arrays: (x,), (x, y) or (x, y, sample weights), each an array, or nested arrays of one length.
        batch_size: the last batch of an epoch may be smaller.
        length: batches in all, over many epochs.
        seed: of the order.

    >>> batches = Batches((np.arange(4.0),), batch_size=2, length=6, seed=0)
    >>> sorted(np.concatenate([batches[2][0], batches[3][0]]).tolist())
    [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, arrays: tuple[Any, ...], batch_size: int, length: int, seed: int) -> None:
        super().__init__()
        self.arrays, self.batch_size, self.length, self.seed = arrays, batch_size, length, seed
        self.rows = len(keras.tree.flatten(arrays[0])[0])
        self.per_epoch = -(-self.rows // batch_size)
        self._epoch, self._order = -1, np.arange(self.rows)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.rows)
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return tuple(keras.tree.map_structure(lambda a: a[chosen], part) for part in self.arrays)


class _Again(keras.utils.PyDataset):
    """Another `PyDataset`, as often as needed."""

    def __init__(self, inner: keras.utils.PyDataset, length: int) -> None:
        super().__init__(inner.workers, inner.use_multiprocessing, inner.max_queue_size)
        self.inner, self.length = inner, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.inner[index % len(self.inner)]


class _Kept(keras.utils.PyDataset):
    """Batches that are kept in memory."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def training(data: Any, batch_size: int, length: int, seed: int) -> Callable[[], Any]:
    """What makes the training data of a trial: at least `length` batches.

    Args:
        data: arrays (x, y) or (x, y, sample weights), or one array; a `tf.data.Dataset`, a `keras.utils.PyDataset`,
            any iterable of batches that can be iterated again; or a function without arguments that returns one of
            these, or a generator: it is called for every trial.

    Raises:
        ConfigError: a generator itself, which only one trial could use; no data.
    """
    if callable(data) and not hasattr(data, "__iter__") and not isinstance(data, keras.utils.PyDataset):
        return lambda: _endless(data(), batch_size, length, seed, data)
    if iter_is_self(data):
        raise ConfigError(f"train_dataset: {_ONCE.format(data=data)}")
    made = _endless(data, batch_size, length, seed, None)  # errors now, not in the first trial
    if isinstance(made, Iterator):
        next(made)
    return lambda: _endless(data, batch_size, length, seed, None)


def validation(data: Any, steps: int | None) -> Any:
    """What `fit` takes as `validation_data`.

    Args:
        data: as in `training`; what a function returns is kept in memory if it is a generator.
        steps: at most so many batches, `None` for all.
    """
    if callable(data) and not hasattr(data, "__iter__") and not isinstance(data, keras.utils.PyDataset):
        data = data()
    elif iter_is_self(data):
        raise ConfigError(f"val_dataset: {_ONCE.format(data=data)}")
    if _is_tf(data) and steps is None and int(data.cardinality()) == -1:
        raise ConfigError("val_dataset: it never ends; give validation_steps, or use .take(n)")
    arrays = _arrays(data)
    if arrays is not None:
        _same_length("val_dataset", arrays)
        return arrays if len(arrays) > 1 else arrays[0]
    if _is_tf(data) or isinstance(data, keras.utils.PyDataset):
        return data
    if not isinstance(data, Iterable):
        raise ConfigError(f"val_dataset: {_EXPECTED}, received {data!r}")
    batches = list(itertools.islice(data, steps))
    if not batches:
        raise ConfigError("val_dataset: it holds no batch")
    return _Kept(batches)


def iter_is_self(data: Any) -> bool:
    """Whether it is an iterator: used up once it was iterated."""
    return isinstance(data, Iterator)


_ONCE = (
    "{data!r} can be iterated only once, and every trial must see the same data. Give the function that makes it: "
    "`lambda: generator()`"
)
_EXPECTED = "expected arrays (x, y), a tf.data.Dataset, a PyDataset, an iterable of batches, or a function"


def _endless(data: Any, batch_size: int, length: int, seed: int, again: Callable[[], Any] | None) -> Any:
    arrays = _arrays(data)
    if arrays is not None:
        _same_length("train_dataset", arrays)
        return Batches(arrays, batch_size, length, seed)
    if _is_tf(data):
        return data.repeat()
    if isinstance(data, keras.utils.PyDataset):
        return _Again(data, length)
    if not isinstance(data, Iterable):
        raise ConfigError(f"train_dataset: {_EXPECTED}, received {data!r}")
    return _chained(data, again)


def _chained(first: Iterable[Any], again: Callable[[], Iterable[Any]] | None) -> Iterator[Any]:
    source: Iterable[Any] = first
    while True:
        empty = True
        for batch in source:
            empty = False
            yield batch
        if empty:
            raise ConfigError("train_dataset: it holds no batch")
        source = first if again is None else again()


def _is_tf(data: Any) -> bool:
    return hasattr(data, "element_spec") and hasattr(data, "repeat")


def _arrays(data: Any) -> tuple[Any, ...] | None:
    """(x, …) if these are arrays. A list is one of batches."""
    if isinstance(data, list):
        return None
    parts = data if isinstance(data, tuple) else (data,)
    if 1 <= len(parts) <= 3 and all(hasattr(leaf, "shape") for part in parts for leaf in keras.tree.flatten(part)):
        return tuple(keras.tree.map_structure(np.asarray, part) for part in parts if part is not None)
    return None


def _same_length(name: str, arrays: tuple[Any, ...]) -> None:
    lengths = {a.shape[0] if a.shape else 0 for a in keras.tree.flatten(arrays)}
    if len(lengths) != 1 or lengths == {0}:
        raise ConfigError(f"{name}: expected arrays of one length, received lengths {sorted(lengths)}")

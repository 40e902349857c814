"""Where batches come from: each is a function of the epoch and of its place in it, so any can be read again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import numpy as np

from capibara_keras import errors

__all__ = ["Source", "make"]


class Source(Protocol):
    """Batches by epoch and place."""

    steps: int

    def batch(self, epoch: int, place: int) -> Any:
        """The batch number `place` of an epoch, both from 0."""


class Arrays:
    """Rows in an order that the seed and the epoch give."""

    def __init__(self, arrays: tuple[Any, ...], batch_size: int, shuffle: bool, seed: int) -> None:
        lengths = {len(leaf) for leaf in keras.tree.flatten(arrays)}
        if len(lengths) != 1 or lengths == {0}:
            raise errors.ConfigError(f"source: expected arrays of one length, received lengths {sorted(lengths)}")
        self.arrays, self.batch_size, self.shuffle, self.seed = arrays, batch_size, shuffle, seed
        self.rows = lengths.pop()
        self.steps = -(-self.rows // batch_size)
        self._known = (-1, np.arange(self.rows))

    def batch(self, epoch: int, place: int) -> Any:
        chosen = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        return tuple(keras.tree.map_structure(lambda a: a[chosen], part) for part in self.arrays)

    def _order(self, epoch: int) -> np.ndarray:
        known, order = self._known  # one read: other threads may replace it
        if self.shuffle and known != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.rows)
            self._known = (epoch, order)
        return order


class Indexed:
    """A `PyDataset`, the same in every epoch."""

    def __init__(self, dataset: keras.utils.PyDataset) -> None:
        self.dataset, self.steps = dataset, len(dataset)

    def batch(self, epoch: int, place: int) -> Any:
        return self.dataset[place]


class ByEpoch:
    """What a function makes of the number of an epoch: a `PyDataset`, or anything that is read in order."""

    def __init__(self, function: Callable[[int], Any], steps: int | None) -> None:
        self.function = function
        self._lock = threading.Lock()
        self._epoch, self._place, self._made, self._iterator = -1, 0, None, iter(())
        self._begin(0)
        self.steps = _length(self._made) if steps is None else steps

    def batch(self, epoch: int, place: int) -> Any:
        with self._lock:
            if isinstance(self._made, keras.utils.PyDataset):
                if epoch != self._epoch:
                    self._begin(epoch)
                return self._made[place]
            if epoch != self._epoch or place < self._place:
                self._begin(epoch)
            found = next(itertools.islice(self._iterator, place - self._place, None), None)
            self._place = place + 1
        if found is None:
            raise errors.ConfigError(f"source({epoch}): ended before batch {place} of {self.steps}")
        return found

    def _begin(self, epoch: int) -> None:
        self._made = self.function(epoch)
        if not isinstance(self._made, keras.utils.PyDataset):
            self._iterator = _read(self._made)
        self._epoch, self._place = epoch, 0


def make(source: Any, batch_size: int, steps: int | None, shuffle: bool, seed: int) -> Source:
    """The source for what a user has; see `Resume.data`."""
    if isinstance(source, keras.utils.PyDataset):
        changing = [n for n in ("on_epoch_begin", "on_epoch_end") if _overrides(source, n)]
        if changing:
            raise errors.ConfigError(
                f"source: {type(source).__name__} has {' and '.join(changing)}, so its epochs differ in a way that "
                "cannot be repeated. Give a function of the epoch that makes the PyDataset of that epoch"
            )
        return Indexed(source)
    if callable(source) and not hasattr(source, "__iter__"):
        return ByEpoch(source, steps)
    parts = source if isinstance(source, tuple) else (source,)
    if 1 <= len(parts) <= 3 and all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(parts)):
        return Arrays(tuple(keras.tree.map_structure(np.asarray, part) for part in parts), batch_size, shuffle, seed)
    raise errors.ConfigError(
        "source: expected arrays (x, y) or (x, y, sample weights), a PyDataset, or a function of the epoch that "
        f"returns what is read in it (`lambda epoch: ...`), received {type(source).__name__}. A generator is read only "
        "once; a tf.data.Dataset goes to `fit` as it is on TensorFlow, and elsewhere through such a function"
    )


def _overrides(dataset: Any, name: str) -> bool:
    return getattr(type(dataset), name) is not getattr(keras.utils.PyDataset, name)


def _read(made: Any) -> Iterator[Any]:
    return iter(made.as_numpy_iterator() if hasattr(made, "as_numpy_iterator") else made)


def _length(made: Any) -> int:
    try:
        return len(made)
    except TypeError as error:
        raise errors.ConfigError(f"steps: {type(made).__name__} has no length; give the batches of an epoch") from error

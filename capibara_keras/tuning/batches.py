"""Batches for the trials of a search: in the same order each time, and as many as a trial needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from capibara_keras.errors import ConfigError

__all__ = ["Again", "Batches", "Kept", "chained"]


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


class Again(keras.utils.PyDataset):
    """Another `PyDataset`, as often as needed."""

    def __init__(self, inner: keras.utils.PyDataset, length: int) -> None:
        super().__init__(inner.workers, inner.use_multiprocessing, inner.max_queue_size)
        self.inner, self.length = inner, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.inner[index % len(self.inner)]


class Kept(keras.utils.PyDataset):
    """Batches that are kept in memory."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def chained(first: Iterable[Any], again: Callable[[], Iterable[Any]] | None) -> Iterator[Any]:
    """Batches without end: of `first`, and then of what `again` returns, or of `first` again.

    Raises:
        ConfigError: there is no batch at all.
    """
    source: Iterable[Any] = first
    while True:
        empty = True
        for batch in source:
            empty = False
            yield batch
        if empty:
            raise ConfigError("train_dataset: it holds no batch")
        source = first if again is None else again()

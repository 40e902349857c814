"""Batches by number, of which the first ones may have been seen already."""

from __future__ import annotations

import zlib
from typing import Any

import keras
import numpy as np

from capibara_keras.errors import CheckpointError
from capibara_keras.resuming.sources import Source
from capibara_keras.warning import warn

__all__ = ["ResumableData"]

KEPT = 4096
"""Batches whose fingerprints are kept; more than are ever read ahead."""

UNWATCHED = 8
"""The first batch that only a training reads: before it begins, Keras looks at two."""

LOOKED_AT = 1 << 16
"""Bytes of each array that a fingerprint is of."""


class ResumableData(keras.utils.PyDataset):
    """What `Resume.data` makes: the batches of all epochs in one row, from where the saved run was.

    It has no length, so that `fit`'s `shuffle` leaves it alone; `steps_per_epoch=data.steps` says it. `fit` counts the
    batches of a resumed epoch from 0, so those that have been seen are stood in for by the next one.

    Args:
        source: gives each batch.
        epoch, place: of the first batch that is trained on.
        fingerprint: of the batch before, as the saved run saw it.

    Raises:
        CheckpointError: that batch is another one now.
    """

    def __init__(self, source: Source, epoch: int = 0, place: int = 0, fingerprint: int | None = None) -> None:
        super().__init__()
        self.source, self.steps, self.start = source, source.steps, (epoch, place)
        self.prints: dict[int, int] = {}
        self.is_watched = False
        if fingerprint is not None and place and _fingerprint(source.batch(epoch, place - 1)) != fingerprint:
            raise CheckpointError(
                f"data: batch {place - 1} of epoch {epoch} is not the one that the saved run trained on. The data, its "
                "order, the batch size or the seed have changed"
            )

    @property
    def num_batches(self) -> None:
        """No end: one row of batches for all epochs."""
        return None

    def __getitem__(self, index: int) -> Any:
        if index == UNWATCHED and not self.is_watched:
            warn("the data of Resume are read without it, so nothing is saved: give fit callbacks=[resume]")
        epoch, place = self.start
        number = epoch * self.steps + max(index, place)
        batch = self.source.batch(*divmod(number, self.steps))
        self.prints[number] = _fingerprint(batch)
        self.prints.pop(number - KEPT, None)
        return batch

    def fingerprint(self, epoch: int, place: int) -> int | None:
        """Of the batch before this one, if it was read."""
        return self.prints.get(epoch * self.steps + place - 1) if place else None


def _fingerprint(batch: Any) -> int:
    result = 0
    for leaf in keras.tree.flatten(batch):
        array = np.asarray(leaf)
        result = zlib.crc32(f"{array.dtype}{array.shape}".encode(), result)
        if array.dtype.hasobject:
            result = zlib.crc32(repr(array.tolist()).encode(), result)
        else:
            result = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8)[:LOOKED_AT].data, result)
    return result

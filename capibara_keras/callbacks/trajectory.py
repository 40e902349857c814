"""A few copies of the weights along the way, for the plane that training stayed in."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from keras import ops

from capibara_keras import errors
from capibara_keras.callbacks.attach import Attach
from capibara_keras.experiment import movable
from capibara_keras.snapshot import host_copy

__all__ = ["Trajectory"]

Checkpoint: TypeAlias = tuple[int, list[np.ndarray]]
"""Updates so far, and the variables."""


class Trajectory(Attach):
    """Keeps checkpoints of the trainable variables in the host's memory, for `trajectory_plane`.

    When there are more than `limit`, every second one is dropped, and from then on copies are made half as often: the
    memory is bounded by `limit` + 1 copies, however long training is, and what is kept is evenly spaced. The first and
    the last weights are always among them. A second `fit` goes on with the path.

    Of an algorithm with two points (Schedule-Free) these are the points in which gradients are taken.

    Args:
        limit: checkpoints that are kept, at least 4.
        every: batches between two of them, as long as there are few.

    Raises:
        ConfigError: an argument out of range.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    >>> model.compile(ck.SGD(), "mse")
    >>> path = ck.Trajectory(limit=4)
    >>> _ = model.fit(np.ones((11, 1)), np.ones((11, 2)), batch_size=1, verbose=0, callbacks=[path])
    >>> path.updates, len(path.checkpoints)
    ([0, 4, 8, 11], 4)
    """

    def __init__(self, limit: int = 20, every: int = 1) -> None:
        super().__init__()
        self.limit = errors.integer("limit", limit, 4)
        self.every = errors.integer("every", every, 1)
        self._kept: list[Checkpoint] = []
        self._last: Checkpoint | None = None
        self._variables: list[int] = []
        self._interval, self._batches = self.every, 0

    @property
    def checkpoints(self) -> list[list[np.ndarray]]:
        """The copies, one array for each trainable variable, in the order of training."""
        return [copies for _, copies in self._all()]

    @property
    def updates(self) -> list[int]:
        """The number of updates before each copy."""
        return [update for update, _ in self._all()]

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """The first copy; a path of other variables is forgotten."""
        super().on_train_begin(logs)
        self._begin()

    def _begin(self) -> None:
        variables = [id(v) for v in movable(self.model)]
        if variables != self._variables:
            self._kept, self._last, self._variables = [], None, variables
            self._interval, self._batches = self.every, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Copy every so many batches. Here and not at the batch's end, when the next one may have begun."""
        super().on_train_batch_begin(batch, logs)
        if batch < 2:  # on TensorFlow, `fit` may build a model in its first batch: the path begins behind it
            self._begin()
        if not self._variables:
            return
        if self._batches % self._interval == 0:
            self.synchronise()
            self._kept.append(self._copy())
            if len(self._kept) > self.limit:
                self._kept = self._kept[::2]
                self._interval *= 2
        self._batches += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Copy the weights that may be the last, before those to be evaluated take their place."""
        self.synchronise()
        self._last = self._copy()
        super().on_epoch_end(epoch, logs)

    def _copy(self) -> Checkpoint:
        updates = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        return updates, [host_copy(v) for v in movable(self.model)]

    def _all(self) -> list[Checkpoint]:
        """Those that are kept, and the last one if it is news."""
        known = self._kept[-1][0] if self._kept else -1
        return [*self._kept, self._last] if self._last is not None and self._last[0] > known else list(self._kept)

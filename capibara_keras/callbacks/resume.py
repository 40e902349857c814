"""A run that was killed goes on at the batch where it was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.backend.iterators import take_position
from capibara_keras.callbacks import iterator_position, run_state
from capibara_keras.callbacks.attach import Attach
from capibara_keras.callbacks.gate import Gate
from capibara_keras.callbacks.termination import Termination
from capibara_keras.files import writable_directory
from capibara_keras.resuming import ResumableData, archive, sources
from capibara_keras.warning import warn

__all__ = ["Resume"]


class Resume(Attach):
    """Saves the whole run every few batches, and goes on from there in the next `fit`, as if it had never stopped.

    Saved are weights, the random states of layers, the optimizer with an open window of micro-batches, metrics, the
    logs of past epochs, the random states of Python, NumPy and torch, and the position in the data. The run then ends
    with the same bits as one that was never stopped, as far as the hardware repeats its sums: on TensorFlow, call
    `tf.config.experimental.enable_op_determinism()`.

    The position must be exact, so `fit` gets its data in one of two ways, and anything else is refused at the first
    batch: what `resume.data(…)` makes, on every backend; or a `tf.data.Dataset` on TensorFlow, whose iterator is
    saved with its shuffle buffer (Python functions, and random ones without a seed, cannot be in it).

    After a complete `fit` the files are removed.

    Args:
        directory: of the files `latest.run` and `previous.run`; it is made.
        every: batches between two saves. The beginning of each epoch after the first is saved too.
        callbacks: whose state is saved too, such as `EarlyStopping`: their attributes that are numbers, strings or
            lists of arrays.
        on_sigterm: on SIGTERM, finish the batch and save before the process ends. Only from the main thread.
        keep: leave the files after a complete `fit`.

    Raises:
        ConfigError: a bad argument, a directory that cannot be written, data whose position cannot be saved.
        CheckpointError: what was saved is damaged, or of another model, optimizer or data. Nothing is changed then.

    >>> import capibara_keras as ck, keras, numpy as np, tempfile
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(ck.Adam(), "mse")
    >>> resume = ck.Resume(tempfile.mkdtemp(), every=2)
    >>> data = resume.data((np.ones((8, 1)), np.ones((8, 1))), batch_size=2)
    >>> history = model.fit(data, steps_per_epoch=data.steps, epochs=3, verbose=0, callbacks=[resume])
    >>> len(history.history["loss"])
    3
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every: int = 500,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        on_sigterm: bool = True,
        keep: bool = False,
    ) -> None:
        super().__init__()
        self.directory, self.every = Path(directory), errors.integer("every", every, 1)
        self.callbacks, self.on_sigterm, self.keep = list(callbacks), on_sigterm, keep
        self._data: ResumableData | None = None
        self._found: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._epochs: list[dict[str, float]] = []
        self._epoch, self._batch, self._saved = 0, 0, 0
        self._start: tuple[int, int] | None = None
        self._checked, self._termination = False, Termination()

    def data(
        self, source: Any, batch_size: int = 32, *, steps: int | None = None, shuffle: bool = True, seed: int = 0
    ) -> ResumableData:
        """Data whose position is known; give it to `fit` with `steps_per_epoch=data.steps`.

        Args:
            source: arrays (x, y) or (x, y, sample weights); a `PyDataset` that is the same in every epoch; or a
                function of the epoch (from 0) that returns what is read in it, always the same: a `PyDataset`, a
                `tf.data.Dataset`, a generator. After a restart the first kinds are read from the batch on; what has no
                numbers is read from its beginning.
            batch_size: rows, for arrays.
            steps: batches per epoch, for a function of what has no length.
            shuffle, seed: for arrays: an order of its own for each epoch.

        Raises:
            ConfigError: a source that cannot be read again.
            CheckpointError: the batch before the saved position is another one than it was.
        """
        batch_size, seed = errors.integer("batch_size", batch_size, 1), errors.integer("seed", seed, 0)
        made = sources.make(source, batch_size, steps, shuffle, seed)
        self._found = archive.load(self.directory)
        position: dict[str, Any] = self._found[0]["position"] if self._found else {}
        if position and position["steps"] not in (None, made.steps):
            raise errors.CheckpointError(
                f"data: {made.steps} batches per epoch, and the saved run had {position['steps']}"
            )
        self._data = ResumableData(
            made, position.get("epoch", 0), position.get("batch", 0), position.get("fingerprint")
        )
        return self._data

    # What Keras calls ----------------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Bring the saved run back, if there is one."""
        if not self.model.built:
            raise errors.ConfigError(
                "Resume: the model is not built, so that nothing could be restored before its first batch. Give it an "
                "Input, or call model.build(input_shape) before fit"
            )
        super().on_train_begin(logs)
        steps = self.params.get("steps")
        if self._data is not None and steps != self._data.steps:
            raise errors.ConfigError(f"fit: give steps_per_epoch=data.steps ({self._data.steps}), received {steps}")
        if self._data is not None:
            self._data.is_watched = True
        writable_directory("directory", self.directory)
        self._start, self._checked, self._saved, self._epochs = None, False, 0, []
        if self._data is None:
            self._found = archive.load(self.directory)
        if self._found is not None:
            description, arrays = self._found
            if not self.model.optimizer.built:
                self.model.optimizer.build(self.model.trainable_variables)
            run_state.put(self.model, arrays)
            position = description["position"]
            self._start, self._epochs = (position["epoch"], position["batch"]), list(description["epochs"])
            self.model._initial_epoch = position["epoch"]
        if self.on_sigterm:
            self._termination.hold(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """A new epoch is saved before its first batch, when all callbacks have seen the last one end."""
        super().on_epoch_begin(epoch, logs)
        self._epoch, self._batch = epoch, 0
        self._saved = 0 if self._epochs_begun(epoch) else -self.every

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Save if it is time. Here and not at the batch's end, when the next one may have begun."""
        super().on_train_batch_begin(batch, logs)
        self._batch = batch
        Gate.open(self.model, self._passes)
        if self._start is not None and self._found is not None and self._data is not None:
            self._go_on(self._data[0])
        if self._data is not None and not self._skipping:
            self._save_if_due(None)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the logs."""
        super().on_epoch_end(epoch, logs)
        self._epochs.append({name: float(value) for name, value in (logs or {}).items()})

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """The run is complete: put the logs of all epochs into the history, and remove the files."""
        super().on_train_end(logs)
        Gate.remove(self.model)
        self.model._initial_epoch = None
        self._termination.release()
        history = getattr(self.model, "history", None)
        if history is not None and self._start is not None:
            names = dict.fromkeys(name for entry in self._epochs for name in entry)
            history.history = {name: [entry.get(name, float("nan")) for entry in self._epochs] for name in names}
            history.epoch = list(range(len(self._epochs)))
        self._start = self._found = None
        if not self.keep:
            archive.remove(self.directory)

    # What happens at a batch ---------------------------------------------------------------------------------

    def _passes(self, data: Any) -> dict[str, Any] | None:
        """Called by the gate with the data: `None` to train, logs to let the batch pass."""
        if self._data is None:
            self._take_iterator(data)
        if self._skipping:
            if self._data is not None and hasattr(data, "__next__"):  # else Keras has read them already
                for _ in range(self.model.steps_per_execution):
                    next(data)  # stands in for one that was seen
            return {}
        if self._data is None:
            self._save_if_due(data)
        return None

    def _take_iterator(self, data: Any) -> None:
        """Refuse data whose position is not known; move an iterator to where the saved run was."""
        if not self._checked:
            iterator_position.require(data)
            self._checked = True
        if self._start is not None and self._found is not None:
            files = iterator_position.saved(self._found[1])
            self._go_on(next(data) if self._start[1] else None)
            take_position(data, files)

    @property
    def _skipping(self) -> bool:
        return self._start is not None and self._epoch == self._start[0] and self._batch < self._start[1]

    def _go_on(self, batch: Any) -> None:
        """The first batch of a resumed run has come: what `fit` and other callbacks have reset is set again."""
        assert self._found is not None and self._start is not None
        (description, arrays), self._found = self._found, None
        if self._start[1] % self.model.steps_per_execution:
            raise errors.ConfigError(
                f"steps_per_execution: {self._start[1]} batches of the epoch were seen, no multiple"
            )
        if self._start[1]:
            self.model._symbolic_build(data_batch=batch)  # on TensorFlow the metrics come into being with the trace
            run_state.put_metrics(self.model, arrays)
        run_state.put_random(description, arrays)
        run_state.put_callbacks(self.callbacks, description, arrays)
        self._saved = self._start[1]

    # Saving --------------------------------------------------------------------------------------------------

    def _save_if_due(self, iterator: Any) -> None:
        if self._batch - self._saved >= self.every or self._termination.is_due:
            self._saved = self._batch
            self._save(iterator)
        if self._termination.is_due:
            self._termination.go_on()

    def _save(self, iterator: Any) -> None:
        """Save; a disk that is full now does not end the run, which can be saved later."""
        self.synchronise()
        description, arrays = run_state.take(self.model, self.callbacks)
        position = {"epoch": self._epoch, "batch": self._batch, "steps": self.params.get("steps")}
        if self._data is not None:
            position["fingerprint"] = self._data.fingerprint(self._epoch, self._batch)
        if iterator is not None:
            arrays |= iterator_position.of(iterator)
        try:
            archive.save(self.directory, description | {"position": position, "epochs": self._epochs}, arrays)
        except OSError as error:
            warn(f"Resume: cannot save in {self.directory}, the run goes on without: {error}")

    def _epochs_begun(self, epoch: int) -> bool:
        """Whether this is the first epoch of the run, or the one that it is resumed in: nothing new to save."""
        return epoch == 0 or (self._start is not None and epoch == self._start[0])

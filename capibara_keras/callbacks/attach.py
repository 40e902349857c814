"""What an optimizer inside `compile` cannot know reaches it through this callback."""

from __future__ import annotations

import keras

from capibara_keras.batchnorm import sync_batchnorm
from capibara_keras.callbacks.schedule_end import require_total, warn_if_over
from capibara_keras.core import Core
from capibara_keras.unwrap import optimizers_of

__all__ = ["Attach", "optimizers_of"]


class Attach(keras.callbacks.Callback):
    """Connects the model's optimizer with `fit`. Every callback of this package is one, so any of them will do.

    It brings the total number of updates (epochs · steps / gradient_accumulation_steps), from which schedules
    configured without `max_steps`, or with ratios, take theirs; the model, so that layers that were unfrozen are
    taken in; and has `fit` trace its train step anew if options changed since the last trace. At the end of `fit`
    the micro-batches that do not fill a window are used (`remainder="flush"`), or kept ("carry"). With
    `nonfinite="raise"` it raises before the next batch. An algorithm with two points (Schedule-Free) trains in one, and
    holds the other for validation, at the end of each epoch and of `fit`: put it before a `ModelCheckpoint`.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> optimizer = ck.Optimizer("sgd", learning_rate=1.0, scheduler_type="linear_with_warmup")
    >>> model.compile(optimizer, "mse")
    >>> _ = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=1, epochs=2, verbose=0, callbacks=[ck.Attach()])
    >>> optimizer.get_learning_rate(step=8)
    0.5
    """

    async_safe = True
    _first_epoch = False

    @property
    def optimizers(self) -> list[Core]:
        """This package's optimizers in the model, out of any wrapper."""
        return list(optimizers_of(self.model.optimizer))

    @property
    def optimizer(self) -> Core:
        """The model's optimizer, if it is of this package and the only one."""
        found = self.optimizers
        if len(found) != 1:
            raise TypeError(
                f"{type(self).__name__} needs a model compiled with one optimizer of capibara_keras, found "
                f"{len(found)} in {type(self.model.optimizer).__name__}. Compile with an optimizer of this package; "
                "Optimizer.from_keras(model.optimizer) makes one that goes on from Keras' own"
            )
        return found[0]

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Bring the total, and make `fit` trace anew where options changed."""
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        stale, self._first_epoch = False, True
        for optimizer in self.optimizers:
            total = self.total_updates(steps, epochs) if steps and epochs else None
            if optimizer.sync_batchnorm:
                changes = sync_batchnorm(self.model, optimizer.gradient_accumulation_steps or 1)
                stale = stale or any(change.momentum != change.momentum_before for change in changes)
            stale = optimizer.attach(model=self.model) or stale
            if (optimizer.built or optimizer.has_loaded_state) and not hasattr(
                self.model.optimizer, "optimizers"
            ):  # else it has a part of the model
                optimizer.build(self.model.trainable_variables)
            stale = optimizer.attach(total_steps=total) or stale
            if total is None:
                require_total(optimizer)
        if stale:
            self.model.make_train_function(force=True)
        self._move(evaluating=False)

    def total_updates(self, steps: int, epochs: int) -> int:
        """Updates of the whole training, from its batches."""
        every = max((optimizer.gradient_accumulation_steps or 1 for optimizer in self.optimizers), default=1)
        return max(1, steps * epochs // every)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """From here on `fit` cannot end other than by an error."""
        for optimizer in self.optimizers:
            optimizer.let_fit_end(False)
            if self._first_epoch:
                warn_if_over(optimizer)
        self._first_epoch = False
        self._move(evaluating=False)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Raise for a gradient of the previous batch that was not finite, where that was asked for.

        Not at the batch's end: with the JAX backend Keras calls that from another thread, while the next batch
        has taken the state.
        """
        self._raise_if_nonfinite()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """As at the beginning of a batch; after the last epoch, use the micro-batches that are left. If a callback
        behind this one stops training now, the optimizer does that when Keras asks it for the final weights."""
        self._raise_if_nonfinite()
        for optimizer in self.optimizers:
            optimizer.let_fit_end(True)
            if optimizer.remainder == "flush" and epoch + 1 == self.params.get("epochs"):
                optimizer.flush()
        self._move(evaluating=True)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Validation is of the point to be evaluated."""
        self._move(evaluating=True)

    def on_predict_begin(self, logs: dict[str, float] | None = None) -> None:
        """So are predictions."""
        self._move(evaluating=True)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """What this callback asked for ends with it."""
        for optimizer in self.optimizers:
            optimizer.let_fit_end(False)
        self._move(evaluating=True)

    def _move(self, evaluating: bool) -> None:
        for optimizer in self.optimizers:
            if optimizer.has_two_points:
                self.synchronise()
                optimizer.evaluation_mode() if evaluating else optimizer.training_mode()

    def _raise_if_nonfinite(self) -> None:
        for optimizer in self.optimizers:
            if optimizer.nonfinite == "raise":
                self.synchronise()
                optimizer.raise_if_nonfinite()

    def synchronise(self) -> None:
        """On the JAX backend, `fit` holds the state: bring it back into the variables."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()

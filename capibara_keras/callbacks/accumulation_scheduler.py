"""Another number of micro-batches per update from some epoch on."""

from __future__ import annotations

from collections.abc import Mapping

from capibara_keras import errors
from capibara_keras.callbacks.attach import Attach

__all__ = ["GradientAccumulationScheduler"]


class GradientAccumulationScheduler(Attach):
    """Changes `gradient_accumulation_steps` at the beginning of epochs, without a new trace.

    Args:
        schedule: epoch (from 0) -> micro-batches per update from then on. Before the first epoch named, the
            optimizer's own number holds. A window that is open when the number changes is closed by the new one.

    Raises:
        ConfigError: an epoch below 0, a number below 1, or no entry.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(ck.SGD(), "mse")
    >>> x = np.ones((8, 1))
    >>> scheduler = ck.GradientAccumulationScheduler({0: 1, 1: 4})
    >>> _ = model.fit(x, x, batch_size=1, epochs=2, verbose=0, callbacks=[scheduler])
    >>> int(model.optimizer.iterations)
    10
    """

    def __init__(self, schedule: Mapping[int, int]) -> None:
        super().__init__()
        if not isinstance(schedule, Mapping) or not schedule:
            raise errors.ConfigError(
                f"schedule: expected a dictionary from epochs to micro-batches, received {schedule!r}"
            )
        checked = {
            errors.integer("schedule: epoch", epoch, 0): errors.integer(f"schedule[{epoch}]", steps, 1)
            for epoch, steps in schedule.items()
        }
        self.schedule = dict(sorted(checked.items()))

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Have the optimizer keep a window, also while one micro-batch fills it."""
        if not self.optimizer.accumulator:
            self.optimizer.reconfigure({"accumulator": True})
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Set the number that holds from this epoch on."""
        super().on_epoch_begin(epoch, logs)
        due = [steps for start, steps in self.schedule.items() if start <= epoch]
        if due and due[-1] != (self.optimizer.gradient_accumulation_steps or 1):
            self.optimizer.gradient_accumulation_steps = due[-1]

    def total_updates(self, steps: int, epochs: int) -> int:
        """Updates of the whole training, with the numbers of the schedule."""
        current, total, pending = self.optimizer.gradient_accumulation_steps or 1, 0, 0
        for epoch in range(epochs):
            current = self.schedule.get(epoch, current)
            rest = steps - max(1, current - pending)  # after the open window is closed; it goes on across epochs
            if rest >= 0:
                total, pending = total + 1 + rest // current, rest % current
            else:
                pending += steps
        return max(1, total)

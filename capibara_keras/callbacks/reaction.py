"""What is done about critical alerts, beyond saying them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras import ops

from capibara_keras.callbacks.good_state import GoodStates
from capibara_keras.core import Core
from capibara_keras.monitoring import Alert
from capibara_keras.watch import Watch

__all__ = ["REACTIONS", "Reaction"]

ACTED = 3
"""After so many rollbacks or reductions in one `fit`, training stops: they do not help."""

ONSET = 20
"""A problem may have begun so many updates before its alert; a copy of that time is no good one."""


@dataclass
class Reaction:
    """Ends training. It is that of one `fit`.

    Args:
        model, optimizer, watch: that are trained, and that watches.
        say: tells the user.
        reduce_factor, keep_every: as in `HealthMonitor`.
    """

    model: Any
    optimizer: Core
    watch: Watch
    say: Callable[[str], None]
    reduce_factor: float
    keep_every: int
    acted: int = field(default=0, init=False)
    copies: GoodStates = field(init=False)

    def __post_init__(self) -> None:
        self.copies = GoodStates(self.model)

    def begin(self) -> None:
        """The model is built, and nothing has happened yet."""

    def after_reading(self) -> None:
        """What was read has been said."""

    def act(self, alert: Alert) -> None:
        """Do something about an alert; not for ever."""
        self.acted += 1
        if self.acted > ACTED:
            self.stop(f"training stops because of {alert.id} at update {alert.step}")
        else:
            self.answer(alert)

    def answer(self, alert: Alert) -> None:
        """Do something about an alert."""
        self.stop(f"training stops because of {alert.id} at update {alert.step}")

    def stop(self, why: str) -> None:
        """End training after this batch."""
        self.say(why)
        self.model.stop_training = True


class ReduceRate(Reaction):
    """Lowers the learning rate."""

    def answer(self, alert: Alert) -> None:
        """Multiply it."""
        before = float(ops.convert_to_numpy(self.optimizer.learning_rate))
        self.optimizer.learning_rate = before * self.reduce_factor
        self.say(f"the learning rate goes from {before:.3g} to {before * self.reduce_factor:.3g}")


class RollBack(Reaction):
    """Goes back to the last good weights and optimizer state."""

    def begin(self) -> None:
        """The first copy."""
        self.copies.keep(int(ops.convert_to_numpy(self.optimizer.iterations)))

    def after_reading(self) -> None:
        """A copy, if it is time and all is well."""
        if self.watch.observations and not self.watch.critical():
            update = self.watch.observations[-1].update + 1
            if update - self.copies.latest >= self.keep_every:
                self.copies.keep(update)

    def answer(self, alert: Alert) -> None:
        """Restore a copy from before the problem began."""
        if not self.copies.fits():
            self.stop("there is no earlier state to go back to: training stops")
            return
        update = self.copies.restore(alert.step - ONSET)
        self.watch.restart()
        self.say(f"weights and optimizer are those of update {update} again; the batches since are skipped")


REACTIONS: dict[str, type[Reaction]] = {"stop": Reaction, "reduce_lr": ReduceRate, "rollback": RollBack}
"""By `on_critical`; "warn" is none."""

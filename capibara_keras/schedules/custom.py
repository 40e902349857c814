"""Any function of the step as a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.types import Scalar

__all__ = ["Custom"]


@keras.saving.register_keras_serializable(package="capibara_keras")
class Custom(keras.optimizers.schedules.LearningRateSchedule):
    """A function as a schedule.

    Args:
        function: `step -> rate`; it is compiled, so it works on tensors: `keras.ops`, no `if` on the step. To be saved
            it must be registered (`keras.saving.register_keras_serializable`).
        peak: its largest value, where something asks for it (`weight_decay_mode="independent"`).

    >>> from capibara_keras.schedules import Custom
    >>> round(float(Custom(lambda step: 0.1 / (1 + step))(9)), 6)
    0.01
    """

    def __init__(self, function: Callable[[Scalar], Any], peak: float | None = None) -> None:
        if not callable(function):
            raise errors.ConfigError(f"function: expected a function of the step, received {function!r}")
        self.function = function
        self.peak = None if peak is None else errors.number("peak", peak, 0, open_low=True)

    def __call__(self, step: Scalar) -> Scalar:
        return keras.ops.convert_to_tensor(self.function(step))

    def get_config(self) -> dict[str, Any]:
        """The function by its registered name.

        Raises:
            ConfigError: it is not registered: a file could not tell which function it was.
        """
        name = keras.saving.get_registered_name(self.function)
        if keras.saving.get_registered_object(name) is not self.function:
            raise errors.ConfigError(
                f"schedule: {self.function!r} cannot be saved; decorate it with "
                "keras.saving.register_keras_serializable()"
            )
        return {"function": keras.saving.serialize_keras_object(self.function), "peak": self.peak}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Custom:
        """The schedule of what `get_config` returned."""
        return cls(keras.saving.deserialize_keras_object(config["function"]), config.get("peak"))

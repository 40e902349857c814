"""A train function that can let batches pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Gate"]


class Gate:
    """Stands before a model's train function, which Keras calls once per execution.

    Args:
        inner: the train function.
        passes: called with what the data comes from; whether this call is to be trained on. Where not, the logs.
    """

    def __init__(self, inner: Callable[..., Any], passes: Callable[[Any], dict[str, Any] | None]) -> None:
        self.inner, self.passes = inner, passes

    def __call__(self, *arguments: Any) -> Any:
        """Of TensorFlow and torch: (data); of JAX: (state, data)."""
        logs = self.passes(arguments[-1])
        if logs is None:
            return self.inner(*arguments)
        return logs if len(arguments) == 1 else (logs, arguments[0])

    @classmethod
    def open(cls, model: Any, passes: Callable[[Any], dict[str, Any] | None]) -> None:
        """Put a gate before a model's train function, in place of one that is there."""
        cls.remove(model)
        model.train_function = cls(model.train_function, passes)

    @staticmethod
    def remove(model: Any) -> None:
        """Take it away."""
        if isinstance(model.train_function, Gate):
            model.train_function = model.train_function.inner

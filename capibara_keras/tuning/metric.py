"""The number that a search makes small or large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capibara_keras import errors
from capibara_keras.errors import ConfigError

__all__ = ["Metric", "metric_name", "metric_of"]

_NAMES = {"validation_loss": "val_loss", "training_loss": "loss", "train_loss": "loss"}
"""Other names of metrics; `validation_x` is `val_x` for every x."""


@dataclass(frozen=True)
class Metric:
    """A metric, and which way is better.

    Args:
        name: in `fit`'s logs.
        maximize: whether larger is better.

    >>> Metric("val_accuracy", maximize=True).loss(0.9)
    -0.9
    """

    name: str
    maximize: bool

    def loss(self, score: float) -> float:
        """The score as what is minimised."""
        return -score if self.maximize else score


def metric_name(name: Any) -> str:
    """The name in `fit`'s logs.

    Raises:
        ConfigError: not a name.

    >>> metric_name("validation_loss"), metric_name("validation_accuracy"), metric_name("val_loss")
    ('val_loss', 'val_accuracy', 'val_loss')
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"optimization_metric: expected a name, received {name!r}")
    if name in _NAMES:
        return _NAMES[name]
    return "val_" + name.removeprefix("validation_") if name.startswith("validation_") else name


def metric_of(name: str, direction: str | None, reported: Sequence[str]) -> Metric:
    """The metric of a model.

    Args:
        name: in `fit`'s logs.
        direction: "min" or "max"; `None` where keras-tuner knows it, as for losses and Keras' metrics.
        reported: names that the model has on data; with "val_" before them they are those on validation data.

    Raises:
        ConfigError: a metric that is not reported, or whose direction is not known.
    """
    names = [*reported, *(f"val_{other}" for other in reported)]
    if name not in names:
        guess = errors.nearest(name, names)
        raise ConfigError(
            f"optimization_metric: the model does not report {name!r}. It reports {', '.join(names)}."
            + (f" Did you mean {guess!r}?" if guess else "")
        )
    if direction is None:
        from keras_tuner.engine.metrics_tracking import infer_metric_direction

        direction = infer_metric_direction(name)
        if direction is None:
            raise ConfigError(f'direction: whether {name!r} should be small or large is not known; give "min" or "max"')
    return Metric(name, direction == "max")

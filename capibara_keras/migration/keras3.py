"""Keras' own optimizers: their settings as options."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from capibara_keras import errors
from capibara_keras.migration.micro_batches import MicroBatchSchedule
from capibara_keras.migration.translations import TRANSLATIONS, Translation

__all__ = ["keras_options", "translation_of"]


def keras_options(optimizer: Any) -> dict[str, Any]:
    """The settings of one of Keras' optimizers, as options of `Optimizer`: the rate or schedule as it is now, clipping,
    averaging, accumulation, decay and what is excluded from it.

    Args:
        optimizer: an object of a class in `keras.optimizers`, built or not; a `LossScaleOptimizer` is not one.

    Raises:
        ConfigError: a class that has no counterpart here, or an option that has none.

    >>> import keras
    >>> options = keras_options(keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0))
    >>> options["algorithm"], options["learning_rate"], options["clipnorm"]
    ('sgd', 0.1, 1.0)
    """
    translation = translation_of(optimizer)
    steps = optimizer.gradient_accumulation_steps or 1
    options = {
        "algorithm": translation.algorithm,
        "name": optimizer.name,
        "learning_rate": _rate(optimizer, steps),
        **{name: getattr(optimizer, name) for name in translation.options},
        **{name: getattr(optimizer, name) or None for name in ("clipnorm", "clipvalue", "global_clipnorm")},
        "weight_decay": optimizer.weight_decay,
        "use_ema": optimizer.use_ema,
        "ema_momentum": optimizer.ema_momentum**steps,  # Keras averages at each micro-batch
        "ema_overwrite_frequency": optimizer.ema_overwrite_frequency,
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "loss_scale_factor": optimizer.loss_scale_factor,
        "weight_decay_exclude": [] if optimizer.built else _excluded_names(optimizer),
    }
    return options | translation.others(optimizer)


def translation_of(optimizer: Any) -> Translation:
    """By the exact class: one that is derived from it may do anything.

    Raises:
        ConfigError: another class.
    """
    name = type(optimizer).__name__
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise errors.ConfigError(f"from_keras: expected an optimizer of Keras, received {optimizer!r}")
    if name not in TRANSLATIONS or getattr(keras.optimizers, name, None) is not type(optimizer):
        if type(optimizer).__module__.startswith("capibara_keras."):
            raise errors.ConfigError(f"from_keras: {name} {optimizer.name!r} is of this package already; use it as is")
        shown = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        raise errors.ConfigError(
            f"from_keras: {shown} has no counterpart here. Allowed: objects of exactly keras.optimizers."
            f"{', '.join(TRANSLATIONS)}, or a LossScaleOptimizer around one"
        )
    return TRANSLATIONS[name]


def _rate(optimizer: Any, steps: int) -> Any:
    """The present rate in as few digits as tell it from others, or what gives it."""
    source = optimizer._learning_rate
    if isinstance(source, keras.optimizers.schedules.LearningRateSchedule) and steps > 1:
        return MicroBatchSchedule(source, steps)
    return source if callable(source) else float(str(ops.convert_to_numpy(source)))


def _excluded_names(optimizer: Any) -> list[str]:
    """What an optimizer that is not built will leave out of decay. Keras searches the last part of a path."""
    if getattr(optimizer, "_exclude_from_weight_decay", None):
        raise errors.ConfigError(
            "from_keras: variables were excluded from weight decay, and which ones is known only after "
            "`optimizer.build(model.trainable_variables)`: call it before"
        )
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    if pattern is None:
        return []
    return [rf"(?:{part.replace('^', '(?:^|/)')})[^/]*$" for part in sorted(pattern.pattern.split("|"))]

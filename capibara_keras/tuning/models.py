"""The model that is tuned: compiled, and made under the strategy that it is for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from capibara_keras.errors import ConfigError

__all__ = ["distributed", "made", "scope_of"]


def made(model: Any, loss: Any, metrics: Any, seed: int | None) -> keras.Model:
    """A compiled model.

    Args:
        model: a model, or a function that returns one.
        loss, metrics: what to compile it with; `None` for one that is compiled. It keeps its optimizer.
        seed: set before the function is called; `None` leaves Keras' as it is.

    Raises:
        ConfigError: not a model, not compiled, or `metrics` without `loss`.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if not isinstance(model, keras.Model) and callable(model):
        model = model()
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model: expected a Keras model, or a function that returns one, received {model!r}")
    if loss is not None:
        model.compile(optimizer=getattr(model, "optimizer", None) or "rmsprop", loss=loss, metrics=metrics)
    elif metrics is not None:
        raise ConfigError(f"metrics: only together with loss, received metrics={metrics!r} and loss=None")
    if not model.compiled:
        raise ConfigError("model: it is not compiled; compile it with its loss and metrics, or give `loss`")
    return model


@contextlib.contextmanager
def distributed(model: Any, strategy: Any) -> Iterator[None]:
    """Under a `tf.distribute` strategy or a `keras.distribution` object; `None` for neither.

    Raises:
        ConfigError: neither of them, or a model that was made elsewhere.
    """
    if strategy is None:
        yield
        return
    if isinstance(model, keras.Model) and getattr(model, "distribute_strategy", None) is not strategy:
        raise ConfigError("distribution_strategy: give the model as a function, so that it is made under the strategy")
    if not hasattr(strategy, "scope"):
        raise ConfigError(
            f"distribution_strategy: expected a tf.distribute or keras.distribution object, received {strategy!r}"
        )
    with strategy.scope():
        yield


def scope_of(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """The `tf.distribute` strategy that the model was made under."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy is not None else contextlib.nullcontext()

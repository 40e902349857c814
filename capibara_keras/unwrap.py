"""Finding this package's optimizers inside of what Keras puts around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from capibara_keras.core import Core

__all__ = ["optimizers_of"]


def optimizers_of(optimizer: Any) -> Iterator[Core]:
    """This package's optimizers in `optimizer`, looking into Keras' wrappers.

    >>> import capibara_keras as ck, keras
    >>> [type(o).__name__ for o in optimizers_of(keras.optimizers.LossScaleOptimizer(ck.Adam()))]
    ['Adam']
    """
    if isinstance(optimizer, Core):
        yield optimizer
    elif hasattr(optimizer, "inner_optimizer"):
        yield from optimizers_of(optimizer.inner_optimizer)
    else:
        for inner in getattr(optimizer, "optimizers", []):
            yield from optimizers_of(inner)

"""A schedule that `fit` cannot complete, and one that is over before `fit` begins."""

from __future__ import annotations

from capibara_keras import backend, errors
from capibara_keras.core import Core
from capibara_keras.rate import Pending
from capibara_keras.warning import warn

__all__ = ["require_total", "warn_if_over"]


def require_total(optimizer: Core) -> None:
    """Where the data have no length, an error that says so, before the first batch.

    Raises:
        ConfigError: the schedule waits for its total.
    """
    source = optimizer._learning_rate
    if isinstance(source, Pending) and source.total_steps is None:
        raise errors.ConfigError(
            f"{optimizer.name}: its schedule needs the total of updates, and fit does not know it: the data have no "
            "length. Give fit steps_per_epoch=..., or the optimizer total_steps=..."
        )


def warn_if_over(optimizer: Core) -> None:
    """A second `fit` of a model whose schedule ended with the first: the rate is 0, or the floor, and stays there."""
    end = getattr(optimizer._learning_rate, "total_steps", None)
    made = int(backend.fetch(optimizer.iterations))
    if end is None or isinstance(optimizer._learning_rate, Pending) or made < end:
        return
    warn(
        f"{optimizer.name}: the schedule ended at update {end}, and {made} were made before this fit: the rate "
        f"stays {optimizer.get_learning_rate():.3g}. To go on, give fit initial_epoch=... and the epochs of the whole "
        "training; to begin anew, compile with a new optimizer"
    )

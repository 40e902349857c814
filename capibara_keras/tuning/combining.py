"""A searched configuration over what the model's own optimizer has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capibara_keras.recipes.overriding import over
from capibara_keras.tuning.conditions import canonical
from capibara_keras.tuning.domains import Values

__all__ = ["combined"]


def combined(base: Mapping[str, Any], values: Mapping[str, Any]) -> Values:
    """The values, and of the base what they leave: not what they name otherwise, not another way of clipping or of
    warmup, not what their algorithm does not have.

    Args:
        base: options in the package's names, or nothing.
        values: options in the user's names.

    >>> combined({"algorithm": "sgd", "momentum": 0.9, "clipnorm": 1.0}, {"algorithm": "adam", "global_clipnorm": 2.0})
    {'algorithm': 'adam', 'global_clipnorm': 2.0}
    >>> combined({"algorithm": "adam", "beta_1": 0.8}, {"beta1": 0.9})
    {'algorithm': 'adam', 'beta1': 0.9}
    """
    if not base:
        return dict(values)
    left = over(base, values)
    given = {canonical(name) for name in values}
    return {name: value for name, value in base.items() if name in left and name not in given} | dict(values)

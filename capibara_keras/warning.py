"""Warnings that point at the line of the user's that led to them."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn"]

BETWEEN = ("capibara_keras", "keras", "keras_tuner", "tensorflow", "jax", "contextlib", "threading")
"""Packages whose lines are no user's."""


def warn(text: str) -> None:
    """A `UserWarning` at the innermost line outside of this package and those below and around it.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn("no warmup")
    >>> print(caught[0].message)
    no warmup
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)

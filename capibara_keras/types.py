"""The vocabulary of the type hints."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the active Keras backend, of any floating dtype."""

Scalar: TypeAlias = Any
"""A tensor of shape ()."""

Variable: TypeAlias = Any
"""A `keras.Variable`, or a native variable of the backend."""


class Scalars(SimpleNamespace):
    """The scalar tensors of one update, read as attributes.

    The pipeline provides `rate` (learning rate), `decay` (the share of each weight that decoupled decay takes
    off in this update, or `None`) and the hyperparameters of rule and clip policy; `UpdateRule.prepare` adds what
    it derives.

    >>> s = Scalars(rate=0.1, decay=None)
    >>> s.replace(rate=0.0)
    Scalars(rate=0.0, decay=None)
    """

    def replace(self, **changes: Scalar) -> Scalars:
        """A copy with some scalars changed or added."""
        return Scalars(**(vars(self) | changes))

"""The vocabulary of the type hints."""

from __future__ import annotations

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the active Keras backend, of any floating dtype."""

Scalar: TypeAlias = Any
"""A tensor of shape ()."""

Variable: TypeAlias = Any
"""A `keras.Variable`, or a native variable of the backend."""

"""How an optimizer's variables are made, moved when the model's change, and given up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from capibara_keras import backend
from capibara_keras.types import Tensor, Variable
from capibara_keras.variables import compute_dtype, path_of

__all__ = ["Allocation", "Spec"]


class Spec(NamedTuple):
    """A variable that belongs to no single variable of the model.

    Attributes:
        name: its name, also in checkpoints.
        places: where its rows belong to something: for each the row that it has been, `None` for a new one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    initializer: float = 0.0
    places: Sequence[int | None] | None = None


class Allocation:
    """Makes variables that Keras tracks, and saves, as those of an optimizer.

    Args:
        owner: the Keras optimizer.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def like(
        self,
        variable: Variable,
        name: str,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        initializer: Any = "zeros",
        per_replica: bool = False,
    ) -> Variable:
        """State for a variable of the model, in its place and layout; one value for all replicas, or one each."""
        own_shape = tuple(variable.shape)
        shape = own_shape if shape is None else shape
        layout = getattr(variable, "_layout", None) if shape == own_shape else None
        if self.owner.shard_state:
            layout = backend.sharded_layout(shape, layout)
        with keras.name_scope(self.owner.name), backend.colocated(variable):
            state = keras.Variable(
                initializer=_initializer(initializer),
                shape=shape,
                dtype=dtype or compute_dtype(variable),
                trainable=False,
                layout=layout,
                name=f"{path_of(variable).replace('/', '_')}_{name}",
                aggregation="sum" if per_replica else "none",
                synchronization="on_read" if per_replica else "auto",
            )
        self.owner._track_variable(state)
        return state

    def kept(self, spec: Spec, old: Variable | None) -> Variable:
        """The old variable if it is what `spec` asks for; else a new one, with those rows that it still has."""
        moved = spec.places is not None and list(spec.places) != list(range(len(spec.places)))
        if old is not None and not moved and tuple(old.shape) == spec.shape:
            return old
        new = self.owner.add_variable(spec.shape, _initializer(spec.initializer), spec.dtype, name=spec.name)
        if old is not None:
            if moved and tuple(old.shape[1:]) == spec.shape[1:]:
                before, after = ops.convert_to_numpy(old), np.array(ops.convert_to_numpy(new))
                for i, place in enumerate(spec.places or ()):
                    after[i] = after[i] if place is None else before[place]
                new.assign(after)
            self.drop(old)
        return new

    def drop(self, variable: Variable) -> None:
        """Give a variable up."""
        self.owner._untrack_variable(variable)

    def unsaved(self, name: str, value: Any, dtype: str) -> Variable:
        """A variable that Keras neither tracks nor saves: the constructor's values win over a checkpoint's."""
        value = np.array(value)

        def initial(shape: Any, dtype: Any) -> Tensor:
            return ops.convert_to_tensor(value, dtype)

        with keras.name_scope(self.owner.name):
            return keras.Variable(initial, value.shape, dtype, trainable=False, name=name)


def _initializer(value: Any) -> Any:
    """A number stands for a constant."""
    return keras.initializers.Constant(value) if isinstance(value, float) else keras.initializers.get(value)

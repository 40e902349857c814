"""Leaving a model as it was, bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from capibara_keras import errors
from capibara_keras.types import Variable

__all__ = ["Snapshot", "host_copy", "preserved"]


def host_copy(variable: Variable) -> np.ndarray:
    """The variable's value, in the host's memory."""
    return np.array(ops.convert_to_numpy(variable))


class Snapshot:
    """Copies of all variables of a compiled model: weights, statistics of normalisations, seed generators, metrics,
    and the optimizer's state. Copies come back exactly; adding a change and subtracting it again would not.

    Args:
        model: built and compiled.
        optimizer: whether to copy the optimizer's state too; where nothing is trained, it stays as it is.
    """

    def __init__(self, model: Any, optimizer: bool = True) -> None:
        synchronise(model)
        self.model, self._trains = model, optimizer
        variables = {id(v): v for v in [*model.variables, *model.metrics_variables]}
        self.copies = [(v, host_copy(v)) for v in variables.values()]
        self.optimizer = [host_copy(v) for v in self._state()]  # by place: what is configured may be made anew

    def restore(self) -> None:
        """Bring all back. Metrics that came into being meanwhile are reset.

        Raises:
            CapibaraError: something is not as it was; this never happened, and is checked all the same.
        """
        self.model.reset_metrics()
        state = self._state()
        changed = [] if len(state) == len(self.optimizer) else ["the optimizer's state"]
        for variable, copy in [*self.copies, *zip(state, self.optimizer, strict=False)]:
            variable.assign(copy)
            if not _same(host_copy(variable), copy):
                changed.append(getattr(variable, "path", variable.name))
        if getattr(self.model, "_jax_state", None):  # what `fit` on JAX would bring back into the variables
            self.model._jax_state, self.model._jax_state_synced = None, True
        if changed:
            raise errors.CapibaraError(f"could not be restored: {', '.join(changed)}")

    def _state(self) -> list[Variable]:
        optimizer = getattr(self.model, "optimizer", None)
        return list(optimizer.variables) if optimizer is not None and self._trains else []


@contextlib.contextmanager
def preserved(model: Any, optimizer: bool = True) -> Iterator[Snapshot]:
    """Whatever happens inside, also an exception: afterwards the model is as it was before; see `Snapshot`."""
    snapshot = Snapshot(model, optimizer)
    try:
        yield snapshot
    finally:
        snapshot.restore()


def synchronise(model: Any) -> None:
    """On the JAX backend, `fit` holds the state: bring it back into the variables."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit: NaNs are equal, 0 and -0 are not."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

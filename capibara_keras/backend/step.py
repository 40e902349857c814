"""One call of `apply` as pure functions, and what the backends share in running it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from keras import tree

from capibara_keras.types import Scalar, Tensor, Variable

__all__ = ["Cache", "Extra", "Grads", "Step", "Window", "changed", "full"]

Grads: TypeAlias = list[Tensor | None]
"""A gradient per variable, `None` where there is none."""

Extra: TypeAlias = Mapping[str, Tensor]
"""Scalars of this call: "weight", "schedule_step"."""

Cache: TypeAlias = dict[Hashable, Any]
"""Compiled functions by what they depend on."""


@dataclass(frozen=True)
class Window:
    """The halves of an update that accumulation adds; all pure.

    Args:
        accumulate: `(state, grads, extra, keep, run) -> state`.
        sums: picks from a state the sums of the micro-batches, to be summed over replicas.
        is_due: `window` of the state -> whether the update runs now; `None` for never.
        is_finite: grads -> whether to keep the micro-batch; `None` to keep all.
        reduced: micro-batches are summed over replicas before they are accumulated, not after.
    """

    accumulate: Callable[[Any, Grads, Extra, Scalar | None, Any], Any]
    sums: Callable[[Any], list[Tensor]]
    is_due: Callable[[Any], Scalar] | None
    is_finite: Callable[[Grads], Scalar] | None = None
    reduced: bool = False


@dataclass(frozen=True)
class Step:
    """One call of `apply` as pure functions over a nested structure of variables.

    Args:
        variables: nested structure of variables with `params`, `counters` and `window`; the state is the same
            structure of tensors.
        update: `(state, grads, extra, run) -> state`, with gradients summed over replicas; `None` for those in the
            accumulators.
        inline: the `Execution` that does everything where it is called.
        window: what accumulation adds, or `None`.
        jit: compile with XLA.
        fused: variables share compiled steps; else one per variable.
        donates: on JAX, the state's old arrays may be overwritten.
    """

    variables: Any
    update: Callable[[Any, Grads | None, Extra, Any], Any]
    inline: Any
    window: Window | None = None
    jit: bool = True
    fused: bool = True
    donates: bool = True

    @property
    def open_window(self) -> Window:
        """The window, where there must be one."""
        assert self.window is not None
        return self.window


def full(present: list[Tensor], missing: Sequence[bool]) -> Grads:
    """Gradients with `None` put back where one is missing."""
    rest = iter(present)
    return [None if absent else next(rest) for absent in missing]


def changed(variables: Any, old: Any, new: Any) -> Iterator[tuple[Variable, Tensor, Tensor]]:
    """(variable, old value, new value) wherever the step made a new tensor."""
    rows = zip(tree.flatten(variables), tree.flatten(old), tree.flatten(new), strict=True)
    return ((variable, a, b) for variable, a, b in rows if a is not b)

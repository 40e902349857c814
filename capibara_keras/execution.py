"""How a function of one variable is applied to all of them: here in a loop, in a backend maybe compiled in bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from keras import ops

from capibara_keras.types import Scalar, Tensor

__all__ = ["INLINE", "Execution", "Inline", "Item", "Row", "Stage"]


class Row(NamedTuple):
    """The state of one variable: lists of one or no entry for what may be missing.

    Attributes:
        param: the variable of the model.
        slots: the rule's state.
        average: exponential moving average of `param`.
        accumulator: sum of gradients of the current window.
    """

    param: Tensor
    slots: list[Tensor]
    average: list[Tensor]
    accumulator: list[Tensor]


class Item(NamedTuple):
    """One variable's part of a stage.

    Attributes:
        what: hashable; everything static that the stage asks about the variable. Variables whose `what` and shapes
            are equal are treated by the same compiled code.
        row: its state; in a backend with variables that change in place, the variables themselves.
        own: tensors that only this variable needs, by name.
    """

    what: Any
    row: Row
    own: Mapping[str, Tensor]


Stage: TypeAlias = Callable[[Any, Row, Mapping[str, Tensor], Any], tuple[Row, tuple[Scalar, ...]]]
"""`(what, row, own, shared) -> (new row, numbers)`; pure."""


class Execution(Protocol):
    """How the stages of an update are run."""

    def each(self, stage: Stage, items: Sequence[Item], shared: Any) -> tuple[list[Row], list[Tensor]]:
        """Apply a stage to every item.

        Returns:
            The new rows, and for each number that the stage returns a vector with one entry per item.
        """

    def once(self, function: Callable[..., Any], *tensors: Any) -> Any:
        """Call a pure function of small tensors that is the same for all variables."""


class Inline:
    """Everything where it is called, on tensors.

    >>> stage = lambda what, row, own, shared: (row._replace(param=row.param * shared), (row.param,))
    >>> rows, (before,) = Inline().each(stage, [Item(None, Row(ops.array(3.0), [], [], []), {})], 2.0)
    >>> float(rows[0].param), float(before[0])
    (6.0, 3.0)
    """

    def each(self, stage: Stage, items: Sequence[Item], shared: Any) -> tuple[list[Row], list[Tensor]]:
        done = [stage(item.what, item.row, item.own, shared) for item in items]
        columns = zip(*(numbers for _, numbers in done), strict=True)
        return [row for row, _ in done], [ops.stack(column) for column in columns]

    def once(self, function: Callable[..., Any], *tensors: Any) -> Any:
        return function(*tensors)


INLINE = Inline()
"""The `Execution` of tensors: what a backend does that compiles an update as one."""

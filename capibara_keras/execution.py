"""How a function of one variable is applied to all of them: here in a loop, in a backend maybe compiled in bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from keras import ops

from capibara_keras import backend
from capibara_keras.types import Scalar, Tensor

__all__ = ["INLINE", "Execution", "Inline", "Item", "Measure", "Row", "Stage"]


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


Measure: TypeAlias = Callable[[Any, Row, Row], tuple[Scalar, ...]]
"""`(what, old row, new row) -> numbers`; pure."""


class Execution(Protocol):
    """How the stages of an update are run."""

    def each(self, stage: Stage, items: Sequence[Item], shared: Any) -> tuple[list[Row], list[Tensor]]:
        """Apply a stage to every item.

        Returns:
            The new rows, and for each number that the stage returns a vector with one entry per item.
        """

    def once(self, function: Callable[..., Any], *tensors: Any) -> Any:
        """Call a pure function of small tensors that is the same for all variables."""

    def each_measured(
        self, stage: Stage, items: Sequence[Item], shared: Any, due: Scalar, measure: Measure, unknown: list[Tensor]
    ) -> tuple[list[Row], list[Tensor]]:
        """As `each`, and if `due` compare each new row with the old one.

        Args:
            due: scalar boolean.
            unknown: what stands for the vectors of `measure`'s numbers if not `due`.

        Returns:
            The new rows, and the vectors of the stage's numbers and of `measure`'s.
        """


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

    def each_measured(
        self, stage: Stage, items: Sequence[Item], shared: Any, due: Scalar, measure: Measure, unknown: list[Tensor]
    ) -> tuple[list[Row], list[Tensor]]:
        rows, vectors = self.each(stage, items, shared)

        def measured() -> list[Tensor]:
            numbers = [measure(item.what, item.row, row) for item, row in zip(items, rows, strict=True)]
            return [ops.stack(column) for column in zip(*numbers, strict=True)]

        return rows, [*vectors, *backend.cond(due, measured, lambda: unknown)]


INLINE = Inline()
"""The `Execution` of tensors: what a backend does that compiles an update as one."""

"""TensorFlow: the stages of an update on variables that change in place, compiled whole or in bundles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from keras import tree

from capibara_keras.backend.bundles import bundles
from capibara_keras.backend.primitives import Primitives
from capibara_keras.backend.step import Step, changed
from capibara_keras.types import Tensor

__all__ = ["Live"]

WHOLE = 32
"""Up to so many variables are compiled as one: bundles would cost more than they save."""


class Live:
    """An `Execution` on variables, which change in place.

    A large model is compiled in bundles of variables that repeat (see `bundles`): for one layer, then run for each.
    That saves most of the time to trace and compile. The bundles are compiled functions inside one that is not;
    where the caller compiles that too, they only save tracing.
    """

    def __init__(self, backend: Primitives, step: Step) -> None:
        self.backend, self.tf, self.jit = backend, backend.tf, step.jit
        self.fused, size = step.fused, len(step.variables.params)
        self.whole = step.fused and size <= WHOLE

    def each(self, stage: Any, items: Sequence[Any], shared: Any) -> tuple[list[Any], list[Tensor]]:
        if not items:
            return [], []
        if self.whole:
            parts = [list(range(len(items)))]
        elif self.fused:
            parts = bundles([self._signature(item) for item in items])
        else:
            parts = [[i] for i in range(len(items))]
        functions: dict[Hashable, Callable[..., Any]] = {}
        vectors = []
        for part in parts:
            whats = tuple(items[i].what for i in part)
            if whats not in functions:
                function = partial(self._in_place, stage, whats)
                functions[whats] = function if self.whole else self.backend.traced(function, jit=self.jit)
            vectors.append(functions[whats]([items[i].row for i in part], [items[i].own for i in part], shared))
        order = [i for part in parts for i in part]
        columns = [self.tf.concat(column, 0) if len(parts) > 1 else column[0] for column in zip(*vectors, strict=True)]
        if order != sorted(order):
            places = sorted(range(len(order)), key=order.__getitem__)
            columns = [self.tf.gather(column, places) for column in columns]
        return [item.row for item in items], columns

    def _in_place(
        self, stage: Any, whats: Sequence[Any], rows: list[Any], owns: list[Any], shared: Any
    ) -> list[Tensor]:
        numbers = []
        for what, variables, own in zip(whats, rows, owns, strict=True):
            old = tree.map_structure(self.backend.read, variables)
            new, measured = stage(what, old, own, shared)
            for variable, before, after in changed(variables, old, new):
                variable.assign(self.tf.cast(after, before.dtype))
            numbers.append(measured)
        return [self.tf.stack(column) for column in zip(*numbers, strict=True)]

    def _signature(self, item: Any) -> Hashable:
        """Items of equal signature are treated by the same compiled code."""
        tensors = [*tree.flatten(item.row), *item.own.values()]
        return item.what, tuple(item.own), tuple((tuple(x.shape), x.dtype) for x in tensors)

    def once(self, function: Callable[..., Any], *tensors: Any) -> Any:
        return function(*tensors) if self.whole else self.backend.traced(function, jit=self.jit)(*tensors)

"""What was chosen for each variable, as data and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from capibara_keras.plan import Plan
from capibara_keras.records import Record
from capibara_keras.rules import Rule, UpdateRule, Wrapper
from capibara_keras.state import VariableState
from capibara_keras.types import Variable

__all__ = ["VariableDescription", "describe", "table"]


@dataclass(frozen=True, eq=False)
class VariableDescription(Record):
    """One row of `Optimizer.describe`.

    Args:
        path, shape, dtype: of the variable.
        group: pattern of its group, "" for none.
        algorithm: name of its rule; of what the rule has for vectors, where that is another.
        rate: multiplier of the learning rate.
        weight_decay: 0 where none acts.
        state_bytes: of its slots, average and accumulator.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    algorithm: str
    rate: float
    weight_decay: float
    state_bytes: int


def describe(
    plan: Plan,
    variables: Sequence[Variable],
    rows: Sequence[VariableState],
    patterns: Sequence[str],
    decays: Sequence[float],
) -> list[VariableDescription]:
    """A row for each variable.

    Args:
        patterns: of the groups, "" for group 0.
        decays: weight decay of each group.
    """
    return [
        VariableDescription(
            path=row.path,
            shape=tuple(v.shape),
            dtype=keras.backend.standardize_dtype(v.dtype),
            group=patterns[p.group],
            algorithm=_title(plan.groups[p.group].rule, tuple(v.shape)),
            rate=p.rate,
            weight_decay=decays[p.group] if p.decays else 0.0,
            state_bytes=sum(_bytes(s) for s in [*row.slots.values(), row.average, row.accumulator] if s is not None),
        )
        for p, v, row in zip(plan.variables, variables, rows, strict=True)
    ]


def table(rows: Sequence[VariableDescription], notes: Sequence[str] = ()) -> str:
    """The rows as text, with totals and notes below.

    >>> print(table([VariableDescription("dense/kernel", (2, 3), "float32", "", "Adam", 1.0, 0.01, 48)]))
    variable      shape   group  algorithm  rate x  decay  state bytes
    dense/kernel  (2, 3)         Adam            1   0.01           48
    1 variables, 6 parameters, 48 bytes of state
    """
    head = ("variable", "shape", "group", "algorithm", "rate x", "decay", "state bytes")
    body = [
        (r.path, str(r.shape), r.group, r.algorithm, f"{r.rate:.4g}", f"{r.weight_decay:g}", f"{r.state_bytes:,}")
        for r in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 4 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [head, *body]
    ]
    parameters = sum(_size(r.shape) for r in rows)
    total = sum(r.state_bytes for r in rows)
    lines.append(f"{len(rows)} variables, {parameters:,} parameters, {total:,} bytes of state")
    return "\n".join(line.rstrip() for line in [*lines, *notes])


def _title(rule: UpdateRule, shape: tuple[int, ...]) -> str:
    """The name of what the variable gets, with modifiers around it."""
    name = type(rule).__name__
    if isinstance(rule, Wrapper):
        return f"{name}({_title(rule.rule, shape)})"
    return rule.name_for(shape) if isinstance(rule, Rule) else name


def _size(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _bytes(variable: Variable) -> int:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    width = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "bfloat16": 2, "float16": 2}.get(dtype, 1)
    return _size(variable.shape) * width

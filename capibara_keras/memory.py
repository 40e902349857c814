"""Bytes that training holds besides activations, counted before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from capibara_keras import catalog, groups
from capibara_keras.config import OptimizerConfig
from capibara_keras.records import Record
from capibara_keras.types import Variable
from capibara_keras.variables import compute_dtype, overwrites, path_of, slots_of

__all__ = ["MemoryReport", "memory_report", "variables_of"]


@dataclass(frozen=True, eq=False)
class MemoryReport(Record):
    """Bytes on each device, activations left out.

    Args:
        parameters: all weights of the model, those that are not trained too.
        gradients: one per trained weight, in its dtype.
        slots: the algorithm's state.
        averages: of the weights (`use_ema`).
        accumulators: sums of gradients (`gradient_accumulation_steps`).
        total: the sum.

    >>> report = MemoryReport(parameters=4_000_000, gradients=4_000_000, slots=8_000_000, averages=0, accumulators=0)
    >>> report.total
    16000000
    """

    parameters: int
    gradients: int
    slots: int
    averages: int
    accumulators: int

    @property
    def total(self) -> int:
        """Of everything."""
        return self.parameters + self.gradients + self.slots + self.averages + self.accumulators

    def _names(self) -> list[str]:
        return [*super()._names(), "total"]

    def __str__(self) -> str:
        width = max(len(name) for name in self)
        return "\n".join(f"{name:{width}}  {self[name] / 1e6:12,.3f} MB" for name in self)


def memory_report(
    configuration: OptimizerConfig, trained: Sequence[Variable], others: Iterable[Variable] = ()
) -> MemoryReport:
    """What an optimizer of this configuration needs for these variables.

    Args:
        trained: the model's variables that are trained.
        others: its other variables.
    """
    devices = _shards() if configuration.shard_state else 1
    rules = [part.rule for part in configuration.parts]
    kept = [v for v in trained if not overwrites(v)]
    numbers = [groups.group_of(configuration.all_groups, path_of(v)) for v in kept]
    slots = sum(_slot_bytes(rules[number], v) for v, number in zip(kept, numbers, strict=True))
    copies = sum(math.prod(v.shape) * catalog.BYTES[compute_dtype(v)] for v in kept)
    sums = sum(math.prod(v.shape) * catalog.BYTES[compute_dtype(v)] for v in trained)
    return MemoryReport(
        parameters=sum(_bytes(v) for v in [*trained, *others]),
        gradients=sum(_bytes(v) for v in trained),
        slots=-(-slots // devices),
        averages=-(-copies // devices) if configuration.use_ema else 0,
        accumulators=-(-sums // devices) if configuration.accumulates else 0,
    )


def variables_of(
    trained: Sequence[Variable], others: Iterable[Variable] = ()
) -> list[tuple[tuple[int, ...], str, bool]]:
    """Shape, dtype, and whether it is trained, of each variable."""
    both = [(v, True) for v in trained] + [(v, False) for v in others]
    return [(tuple(v.shape), keras.backend.standardize_dtype(v.dtype), is_trained) for v, is_trained in both]


def _shards() -> int:
    """Devices among which `shard_state` divides slots, averages and accumulators."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


def _bytes(variable: Variable) -> int:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return math.prod(variable.shape) * catalog.BYTES.get(dtype, 4)


def _slot_bytes(rule: Any, variable: Variable) -> int:
    own, dtype = tuple(variable.shape), compute_dtype(variable)
    shapes = [(own if slot.shape is None else slot.shape, slot.dtype or dtype) for slot in slots_of(rule, variable)]
    return sum(math.prod(shape) * catalog.BYTES[kind] for shape, kind in shapes)

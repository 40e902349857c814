"""Result records: read as attributes or as mappings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Record", "StepRecord"]


class Record(Mapping[str, Any]):
    """Base of the frozen result dataclasses: `r.gradient_norm` and `r["gradient_norm"]` are the same.

    A number that is not known is `nan`, never 0.
    """

    def __getitem__(self, key: str) -> Any:
        if key not in self._names():
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class StepRecord(Record):
    """What one update did.

    Args:
        update: index of the update, from 0.
        learning_rate: the rate that was used.
        gradient_norm: L2 norm over all variables, summed over replicas, averaged over micro-batches, before
            clipping; `inf` if it was not finite.
        parameter_norm: L2 norm over all variables, before the update.
        update_norm: L2 norm of the change of all variables: rate, clipping, decay and constraints included, an
            EMA overwrite not.
        weight_decay_loss: ½ weight_decay Σ w² over the decayed variables, before the update.
        clip_threshold: the limit that was in force; with one per variable the lowest; `nan` without one.
        clipped: whether clipping changed the gradient.
        skipped: whether the update was left out because the gradient was not finite.
        loss: of the batch, or the mean over micro-batches; `nan` where the optimizer was not told (see `observe`),
            `inf` if it was not finite.

    The three norms after `gradient_norm` are `nan` where they were not measured.

    >>> record = StepRecord(0, 0.1, 2.0, 3.0, 0.2, 0.0, 1.0, clipped=True, skipped=False)
    >>> record["gradient_norm"] == record.gradient_norm
    True
    """

    update: int
    learning_rate: float
    gradient_norm: float
    parameter_norm: float
    update_norm: float
    weight_decay_loss: float
    clip_threshold: float
    clipped: bool
    skipped: bool
    loss: float = float("nan")

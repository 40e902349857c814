"""What an update leaves behind beside weights: statistics, counters, probes, an empty window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from capibara_keras import probes
from capibara_keras.pipeline.data import (
    Decision,
    State,
    attempts_so_far,
    counted,
    finite_or_infinite,
    hyperparameters_of,
    scattered,
)
from capibara_keras.plan import Plan
from capibara_keras.types import Scalar, Tensor

__all__ = ["record", "watch_units"]


def record(
    plan: Plan,
    index: Sequence[int],
    rest: State,
    decision: Decision,
    norms: Tensor,
    beyond: Tensor,
    numbers: Sequence[Tensor],
) -> dict[str, Any]:
    """The entries of the state that are no variable's own, after this update.

    Args:
        norms: of the gradients at `index`.
        beyond: of all variables, whether clipping showed only in the stage of the rule.
        numbers: what `measure_change` returned, for all variables.
    """
    parameter_norms, update_norms, *probed = numbers
    ok, clipped = decision.ok, ops.logical_or(decision.clipped, ops.any(beyond > 0))
    skipped = ops.logical_not(ok)
    known = ops.array([not v.overwrite for v in plan.variables])
    squares = ops.where(known, ops.square(parameter_norms), ops.zeros_like(parameter_norms))
    moved = ops.where(known, ops.square(update_norms), ops.zeros_like(update_norms))
    measured = [ops.sqrt(ops.sum(squares)), ops.sqrt(ops.sum(moved)), 0.5 * _penalty(plan, rest, squares)]
    flags = [ops.cast(flag, plan.dtype) for flag in (clipped, skipped)]
    gradient_norms = scattered(finite_or_infinite(norms), index, len(plan.variables))
    norm, loss = finite_or_infinite(decision.norm), ops.cast(_mean_loss(rest), plan.dtype)
    row = ops.stack([decision.rate, norm, decision.threshold, *flags, *measured, loss])
    by_variable = ops.stack([gradient_norms, parameter_norms, update_norms], axis=1)
    arrived = ops.zeros((), "bool") if rest.window else ops.ones((), "bool")
    recorded: dict[str, Any] = {
        "updates": rest.updates + ops.cast(ok, rest.updates.dtype),
        "counters": counted(rest, micro_steps=arrived, skipped=skipped, clipped=clipped, spikes=decision.spike),
        "statistics": _logged(rest.statistics, attempts_so_far(rest), row[None, :], axis=0),
        "variable_norms": _logged(rest.variable_norms, attempts_so_far(rest), by_variable[:, None, :], axis=1),
        "norms": decision.norms,
        "spikes": decision.spikes,
        "losses": ops.zeros_like(rest.losses),
        "evaluating": [ops.where(ok, ops.zeros_like(flag), flag) for flag in rest.evaluating],
    }
    if rest.probes:
        recorded["probes"] = [*_latest_probes(rest, probed), _closed_window(rest, norm)]
    if rest.window:
        count, full, total = rest.window
        recorded["window"] = [ops.zeros_like(count), full, ops.zeros_like(total)]
        recorded["contributed"] = [ops.zeros_like(c) for c in rest.contributed]
    return recorded


def watch_units(plan: Plan, rest: State, biases: Sequence[Tensor | None]) -> Tensor:
    """For each unit the last update in which it had a gradient; see `probes.active`."""
    return probes.active(rest.probes[0], biases, plan.unit_sizes, attempts_so_far(rest) + 1)


def _mean_loss(rest: State) -> Scalar:
    """Of the losses that were observed since the last update: nan if none was, inf if it is not finite."""
    total, count = rest.losses[0], rest.losses[1]
    mean = finite_or_infinite(total / ops.maximum(count, 1))
    return ops.where(count > 0, mean, ops.full_like(mean, float("nan")))


def _latest_probes(rest: State, probed: Sequence[Tensor]) -> list[Tensor]:
    """`probes.ENTRIES` by variable and the sums of `probes.NUMBERS`; where nothing was measured, those of before."""
    _, entries, numbers, _ = rest.probes
    n = len(probes.ENTRIES)
    now = ops.stack(list(probed[:n]), axis=1)
    sums = [ops.sum(ops.where(ops.isnan(x), ops.zeros_like(x), x)) for x in probed[n:]]
    new = ops.stack(sums)
    return [ops.where(ops.isnan(now), entries, now), ops.where(new[-1] > 0, new, numbers)]


def _closed_window(rest: State, norm: Scalar) -> Tensor:
    """`probes.MICRO_BATCHES` after this update. Micro-batches of different weights are no sample of one size."""
    micro = rest.probes[-1]
    if not rest.window:
        return micro
    count, total = ops.cast(rest.window[0], micro.dtype), ops.cast(rest.window[2], micro.dtype)
    usable = ops.logical_and(ops.isfinite(micro[0] + norm), ops.logical_and(count > 1, total == count))
    latest = ops.stack([micro[0] / ops.maximum(count, 1), ops.cast(attempts_so_far(rest), micro.dtype), count])
    return ops.concatenate([ops.zeros_like(micro[:1]), ops.where(usable, latest, micro[1:])])


def _penalty(plan: Plan, rest: State, squares: Tensor) -> Scalar:
    """Sum over the decayed variables of weight_decay ||p||²."""
    total = ops.zeros((), plan.dtype)
    for number, group in enumerate(plan.groups):
        decayed = np.array([v.decays and v.group == number for v in plan.variables])
        if "weight_decay" in group.hyperparameters and decayed.any():
            decay = hyperparameters_of(plan, rest, number).weight_decay
            total = total + decay * ops.sum(ops.where(decayed, squares, ops.zeros_like(squares)))
    return total


def _logged(ring: Tensor, count: Scalar, entry: Tensor, axis: int) -> Tensor:
    """The ring with an entry (of length 1 along `axis`) over the oldest."""
    length = ring.shape[axis]
    here = ops.arange(length, dtype="int32") == count % length
    shape = [length if i == axis else 1 for i in range(len(ring.shape))]
    return ops.where(ops.reshape(here, shape), entry, ring)

"""What is fixed for a compiled step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from capibara_keras.clip import ClipPolicy
from capibara_keras.rules import UpdateRule
from capibara_keras.types import Scalar, Tensor

__all__ = ["GroupPlan", "Plan", "VariablePlan"]


@dataclass(frozen=True)
class VariablePlan:
    """What is fixed about one variable.

    Args:
        path: its name in messages and patterns.
        dtype: of the computation: the variable's own, at least float32.
        group: number of its group in `Plan.groups`.
        rate: multiplier of the learning rate.
        decays: whether weight decay acts on it.
        overwrite: its gradient is its next value (float8 scales).
        constraint: Keras constraint or `None`.
        units: axes of a unit, for unit-wise clipping; `None` leaves it unclipped there.
        joined: updates that the optimizer had seen when the variable came in; its bias correction starts there.
    """

    path: str
    dtype: str
    group: int = 0
    rate: float = 1.0
    decays: bool = True
    overwrite: bool = False
    constraint: Callable[[Tensor], Tensor] | None = None
    units: tuple[int, ...] | None = None
    joined: int = 0


@dataclass(frozen=True)
class GroupPlan:
    """Algorithm and clipping of the variables of one group.

    Args:
        clip: `None` for the clipping of group 0.
        hyperparameters: names of its entries in `State.hyperparameters`, from `offset` on.
    """

    rule: UpdateRule
    clip: ClipPolicy | None
    hyperparameters: tuple[str, ...]
    offset: int


@dataclass(frozen=True)
class Plan:
    """What is fixed for a compiled step.

    Args:
        groups: group 0 holds all variables that no other one claims.
        shared: names of the last entries of `State.hyperparameters`: `one_minus_ema_momentum`, `spike_sigma`.
        dtype: of scalars and statistics.
        schedule: `step -> rate`, or `None` for the rate in `State.rate`.
        peak: largest value of the rate's schedule, for independent and corrected weight decay.
        weight_decay_mode: "decoupled", "independent", "corrected" or "l2".
        nonfinite: "propagate" lets a non-finite gradient through; "drop_micro_batch" leaves it out of its window;
            any other policy skips the update.
        loss_scale: what the loss was multiplied by.
        normalize: divide the sum of a window by the weights of its micro-batches.
        divided: the loss arrives divided by the number of micro-batches that fill a window.
        clip_micro_batches: clip before accumulating, not after.
        ema_overwrite_frequency: every so many updates the weights become their average.
        statistics_every: measure the norms of parameters and of their change at every so many updates; `None` for
            never.
        watched: the biases whose entries are units to be watched, and `unit_sizes` how many each has.
        half_precision: whether gradients come out of float16.
    """

    groups: tuple[GroupPlan, ...]
    variables: tuple[VariablePlan, ...]
    shared: tuple[str, ...] = ()
    dtype: str = "float32"
    schedule: Callable[[Scalar], Scalar] | None = None
    peak: float = 1.0
    weight_decay_mode: str = "decoupled"
    maximize: bool = False
    nonfinite: str = "skip"
    loss_scale: float | None = None
    normalize: bool = True
    divided: bool = False
    clip_micro_batches: bool = False
    ema_overwrite_frequency: int | None = None
    statistics_every: int | None = None
    watched: tuple[int, ...] = ()
    unit_sizes: tuple[int, ...] = ()
    half_precision: bool = False

"""From a configuration and the model's variables to the `Plan` of a compiled step."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras

from capibara_keras import groups, probes
from capibara_keras.clip import UnitwiseClip
from capibara_keras.config import VECTORS, OptimizerConfig
from capibara_keras.plan import GroupPlan, Plan, VariablePlan
from capibara_keras.state import VariableState
from capibara_keras.types import Variable
from capibara_keras.units import unit_axes
from capibara_keras.variables import compute_dtype, overwrites, path_of, scalar_dtype

__all__ = ["group_numbers", "make_plan"]


def group_numbers(configuration: OptimizerConfig, paths: Sequence[str]) -> list[int]:
    """The group of each variable: the first whose pattern matches, else 0."""
    return [groups.group_of(configuration.all_groups, path) for path in paths]


def make_plan(
    configuration: OptimizerConfig,
    variables: Sequence[Variable],
    rows: Sequence[VariableState],
    *,
    decays: Sequence[bool],
    schedule: Callable[[Any], Any] | None,
    peak: float,
    loss_scale: float | None,
    divided: bool,
    model: Any = None,
) -> Plan:
    """The plan of a step over `variables`.

    Args:
        rows: their state.
        decays: whether weight decay acts on each.
        schedule: `step -> rate`, or `None` for a rate that is a variable.
        peak: of the schedule, for independent and corrected weight decay.
        loss_scale: what the loss was multiplied by.
        divided: whether the loss arrives divided by the number of micro-batches.
        model: tells the layers, for depths and unit-wise clipping; may be `None`.
    """
    paths = [row.path for row in rows]
    shapes = [tuple(v.shape) for v in variables]
    _warn_idle(configuration, paths if model is None else [path_of(v) for v in model.variables])  # frozen ones too
    return Plan(
        groups=_group_plans(configuration),
        variables=_variable_plans(configuration, variables, rows, decays, model),
        shared=tuple(configuration.shared),
        dtype=scalar_dtype(),
        schedule=schedule,
        peak=peak,
        weight_decay_mode=configuration.weight_decay_mode,
        maximize=configuration.maximize,
        nonfinite=configuration.nonfinite,
        loss_scale=loss_scale,
        normalize=configuration.normalize_gradients,
        divided=divided,
        clip_micro_batches=configuration.accumulates and not configuration.defer_clip_until_accumulation,
        ema_overwrite_frequency=configuration.ema_overwrite_frequency,
        statistics_every=configuration.statistics_every,
        watched=tuple(probes.watched(paths, shapes)),
        unit_sizes=tuple(probes.unit_sizes(paths, shapes)),
        half_precision=_computes_in_half_precision(model),
    )


def _group_plans(configuration: OptimizerConfig) -> tuple[GroupPlan, ...]:
    plans, offset = [], 0
    for part in configuration.parts:
        plans.append(GroupPlan(part.rule, part.clip, tuple(part.hyperparameters), offset))
        offset += len(part.hyperparameters)
    return tuple(plans)


def _variable_plans(
    configuration: OptimizerConfig,
    variables: Sequence[Variable],
    rows: Sequence[VariableState],
    decays: Sequence[bool],
    model: Any,
) -> tuple[VariablePlan, ...]:
    paths = [row.path for row in rows]
    factors = groups.multipliers(
        paths,
        [len(v.shape) for v in variables],
        groups=configuration.all_groups,
        differential=configuration.differential_learning_rates,
        layer_decay=configuration.layer_wise_lr_decay,
        layer_depths=configuration.layer_depths,
        layers=None if model is None else _layers(model, variables),
    )
    unitwise = next((part.clip for part in configuration.parts if isinstance(part.clip, UnitwiseClip)), None)
    units: Sequence[tuple[int, ...] | None] = [None] * len(paths)
    if unitwise is not None:
        units = unit_axes(variables, paths, model, include_output=unitwise.include_output)
    numbers = group_numbers(configuration, paths)
    return tuple(
        VariablePlan(
            path=row.path,
            dtype=compute_dtype(v),
            group=number,
            rate=factor,
            decays=decay,
            overwrite=overwrites(v),
            constraint=getattr(v, "constraint", None),
            units=axes,
            joined=row.joined,
        )
        for v, row, number, factor, decay, axes in zip(variables, rows, numbers, factors, decays, units, strict=True)
    )


def _layers(model: Any, variables: Sequence[Variable]) -> list[Any]:
    """For each variable the layer it lies in, the outermost that is not a model itself."""
    found: dict[int, Any] = {}

    def visit(part: Any) -> None:
        found.update({id(v): id(part) for v in getattr(part, "_trainable_variables", ())})  # of its own
        for layer in part.layers:
            if isinstance(layer, keras.Model):
                visit(layer)
            else:
                found.update({id(v): id(layer) for v in layer.variables})

    visit(model)
    return [found.get(id(v)) for v in variables]


def _computes_in_half_precision(model: Any) -> bool:
    """Whether a layer computes in float16; without a model, whether Keras' default is to."""
    if model is None:
        return keras.config.dtype_policy().compute_dtype == "float16"
    return any(layer.compute_dtype == "float16" for layer in model._flatten_layers())


def _warn_idle(configuration: OptimizerConfig, paths: Sequence[str]) -> None:
    """A warning that names the patterns that match no variable."""
    patterns = [group.pattern for group in configuration.groups]
    patterns += [*(configuration.differential_learning_rates or {}), *(configuration.layer_depths or {})]
    shown = {repr(pattern): pattern for pattern in patterns}
    if configuration.weight_decay or any(group.weight_decay for group in configuration.groups):
        excluded = [pattern for pattern in configuration.weight_decay_exclude if pattern != VECTORS]
        if not any(re.search(pattern, path) for pattern in excluded for path in paths):  # else one of a usual list
            shown |= {f"weight_decay_exclude={pattern!r}": f"re:{pattern}" for pattern in excluded}
    groups.warn_unmatched(shown, paths)

"""Keras' own optimizers: going on where one of them stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras.migration.keras3 import keras_options, translation_of

__all__ = ["take_over"]


def take_over(optimizer: Any, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """An optimizer that goes on where one of Keras' stands; see `Optimizer.from_keras`.

    Args:
        optimizer: Keras'.
        make: makes ours from options.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _take_over_scaled(optimizer, make)
    result = make(keras_options(optimizer))
    if optimizer.built:
        variables = optimizer._trainable_variables
        excluded = [v for v in variables if not optimizer._use_weight_decay(v)]
        if excluded:
            result.exclude_from_weight_decay(var_list=excluded)
        result.build(variables)
        _take_state(result, optimizer)
    return result


def _take_over_scaled(optimizer: Any, make: Callable[[Mapping[str, Any]], Any]) -> Any:
    """The same in a `LossScaleOptimizer` of its own, with the scale of the old one."""
    inner = take_over(optimizer.inner_optimizer, make)
    result = keras.optimizers.LossScaleOptimizer(
        inner, optimizer.initial_scale, optimizer.dynamic_growth_steps, name=optimizer.name
    )
    if optimizer.built:
        result.build(optimizer.inner_optimizer._trainable_variables)
        for name in ("step_counter", "dynamic_scale"):
            getattr(result, name).assign(getattr(optimizer, name))
    return result


def _take_state(result: Any, optimizer: Any) -> None:
    """Counter, slots, averages and window. Ours is built on the same variables, and has done no update."""
    inventory, steps = result._inventory(), optimizer.gradient_accumulation_steps or 1
    seen = int(ops.convert_to_numpy(optimizer._iterations))
    values: dict[tuple[str, str], Any] = {("iteration", ""): seen // steps}
    counters = np.array(ops.convert_to_numpy(inventory["counters", ""]))
    counters[0] = seen  # micro-batches
    values["counters", ""] = counters
    slots, size = translation_of(optimizer).slots, len(result._rows)
    for i, row in enumerate(result._rows):
        for name in row.slots:
            source = slots[name]
            values[name, row.path] = getattr(optimizer, source)[i] if isinstance(source, str) else source(optimizer, i)
        if row.average is not None:
            values["average", row.path] = optimizer._model_variables_moving_average[i]
        if row.accumulator is not None:
            values["accumulator", row.path] = optimizer._accumulated_gradients[i]
    if steps > 1:
        pending = seen % steps
        values |= {("micro_step", ""): pending, ("window_weight", ""): pending}
        values["contributed", ""] = np.full(size, pending)
    for key, value in values.items():
        inventory[key].assign(ops.cast(ops.convert_to_numpy(value), inventory[key].dtype))

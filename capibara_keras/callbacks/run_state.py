"""What a run consists of, as plain data and arrays: model, optimizer, metrics, random numbers, other callbacks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from capibara_keras.backend.random_states import put_random_states, random_states
from capibara_keras.callbacks.attach import optimizers_of
from capibara_keras.errors import CheckpointError

__all__ = ["put", "put_callbacks", "put_metrics", "put_random", "take"]

Arrays = dict[str, np.ndarray]

HIDDEN = {"model", "_model", "params"}


def take(model: Any, callbacks: Sequence[Any]) -> tuple[dict[str, Any], Arrays]:
    """The state of a compiled model, of random numbers on the host, and of callbacks."""
    arrays: Arrays = {}
    for group, variables in _groups(model).items():
        arrays |= {f"{group}/{i}": _array(v) for i, v in enumerate(variables)}
    for number, optimizer in enumerate(optimizers_of(model.optimizer)):
        store: dict[str, Any] = {}
        optimizer.save_own_variables(store)
        arrays |= {f"optimizer {number}/{key}": np.array(value) for key, value in store.items()}
    kept = []
    for number, callback in enumerate(callbacks):
        plain, tensors = _plain_state(callback)
        kept.append(
            {"class": type(callback).__name__, "values": plain, "lists": {k: len(v) for k, v in tensors.items()}}
        )
        arrays |= {f"callback {number}/{k}/{i}": a for k, parts in tensors.items() for i, a in enumerate(parts)}
    name, keys, *rest = np.random.get_state()
    arrays["random/numpy"] = np.array(keys)
    arrays |= {f"random/torch/{generator}": a for generator, a in random_states().items()}
    return {"python": random.getstate(), "numpy": [name, *rest], "callbacks": kept}, arrays


def put(model: Any, arrays: Arrays) -> None:
    """Write weights and the optimizer's state; all or nothing for a model with one optimizer.

    Raises:
        CheckpointError: they are another model's, or another algorithm's.
    """
    groups = {name: variables for name, variables in _groups(model).items() if name != "metrics"}
    for group, variables in groups.items():
        _check(group, variables, _of(arrays, group))
    for number, optimizer in enumerate(optimizers_of(model.optimizer)):
        store = _of(arrays, f"optimizer {number}")
        if not store:
            raise CheckpointError("the saved run had another optimizer, whose state cannot be read")
        optimizer.load_own_variables(store)
    for group, variables in groups.items():
        _assign(variables, _of(arrays, group))


def put_metrics(model: Any, arrays: Arrays) -> None:
    """Write the metrics, as they were in mid-epoch.

    Raises:
        CheckpointError: the model is compiled with others.
    """
    variables, saved = _groups(model)["metrics"], _of(arrays, "metrics")
    _check("metrics", variables, saved)
    _assign(variables, saved)


def put_random(description: Mapping[str, Any], arrays: Arrays) -> None:
    """Set the random states of Python, of NumPy's global generator, and of torch where that is the backend."""
    version, numbers, gauss = description["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, *rest = description["numpy"]
    np.random.set_state((name, arrays["random/numpy"], *rest))
    put_random_states(_of(arrays, "random/torch"))


def put_callbacks(callbacks: Sequence[Any], description: Mapping[str, Any], arrays: Arrays) -> None:
    """Set the plain attributes of callbacks.

    Raises:
        CheckpointError: the saved run had others.
    """
    saved = description["callbacks"]
    if [entry["class"] for entry in saved] != [type(callback).__name__ for callback in callbacks]:
        names = [entry["class"] for entry in saved]
        raise CheckpointError(f"callbacks: the saved run kept the state of {names}; give Resume the same ones")
    for number, (callback, entry) in enumerate(zip(callbacks, saved, strict=True)):
        vars(callback).update(entry["values"])
        for name, length in entry["lists"].items():
            parts = [arrays[f"callback {number}/{name}/{i}"] for i in range(length)]
            setattr(callback, name, parts)


def _groups(model: Any) -> dict[str, list[Any]]:
    """Variables by what they belong to; those of this package's optimizers are not among them."""
    ours = {id(v) for optimizer in optimizers_of(model.optimizer) for v in optimizer.variables}
    return {
        "model": list(model.variables),
        "wrapper": [v for v in model.optimizer.variables if id(v) not in ours],
        "metrics": list(model.metrics_variables),
    }


def _of(arrays: Arrays, group: str) -> Arrays:
    return {name.removeprefix(f"{group}/"): a for name, a in arrays.items() if name.startswith(f"{group}/")}


def _check(group: str, variables: Sequence[Any], saved: Arrays) -> None:
    here = [(tuple(v.shape), np.dtype(_array(v).dtype).name) for v in variables]
    there = [(saved[str(i)].shape, saved[str(i)].dtype.name) for i in range(len(saved))]
    if here != there:
        differ = [i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b]
        where = f"; the first that differs is {variables[differ[0]].path}: {there[differ[0]]} in the file, "
        where = f"{where}{here[differ[0]]} here" if differ else ""
        raise CheckpointError(f"the saved run has {len(there)} variables ({group}), this model {len(here)}{where}")


def _assign(variables: Sequence[Any], saved: Arrays) -> None:
    for i, variable in enumerate(variables):
        variable.assign(saved[str(i)])


def _array(variable: Any) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable))


def _plain_state(callback: Any) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Attributes that are numbers, strings or lists of arrays; others are the constructor's."""
    plain: dict[str, Any] = {}
    arrays: dict[str, list[np.ndarray]] = {}
    for name, value in vars(callback).items():
        if name in HIDDEN:
            continue
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, (bool, int, float, str)):
            plain[name] = value
        elif isinstance(value, list) and value and all(isinstance(part, np.ndarray) for part in value):
            arrays[name] = value
        elif isinstance(value, list) and all(isinstance(part, (bool, int, float, str)) for part in value):
            plain[name] = value
    return plain, arrays

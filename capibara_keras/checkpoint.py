"""Optimizer state in Keras' stores: what is written, and which state may be restored into which optimizer."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from capibara_keras.config import OptimizerConfig
from capibara_keras.errors import CheckpointError
from capibara_keras.types import Variable

__all__ = ["FORMAT", "OWN", "Key", "load", "restore", "save", "write"]

FORMAT = 1
"""Version of the format; a reader refuses what is newer than itself."""

_INSTEAD = "To begin with empty state instead, compile with a new optimizer after the weights are loaded"

Key: TypeAlias = tuple[str, str]
"""Name of a state variable, and the path of the model's variable it belongs to ("" for none)."""

OWN = "own_"
"""Begins the names of variables that a subclass keeps for itself: they are numbered as they were made."""

Description: TypeAlias = dict[str, Any]
"""What a file says of its variables."""

OPTIONAL = {"learning_rate", "learning_rate_multiplier", "counters", "statistics", "variable_norms", "losses"}
OPTIONAL |= {"evaluating"}
OPTIONAL |= {"gradient_norms"}  # of earlier versions
OPTIONAL |= {"micro_step", "window_weight", "contributed", "accumulator"}
OPTIONAL |= {"clip_history", "clip_history_count", "spike_history", "spike_history_count"}
"""State that a run can do without: it depends on options that may change between two runs."""


def save(
    inventory: Mapping[Key, Variable],
    configuration: OptimizerConfig,
    joined: Mapping[str, int],
    frozen: Sequence[str],
    store: Any,
) -> None:
    """Write variables under their numbers, and a description of them as JSON bytes under "metadata".

    Args:
        joined: for variables that came in later, how many updates there had been.
        frozen: variables that are not trained at present; an optimizer that does not know them can do without.
    """
    description = {
        "format": FORMAT,
        "family": configuration.rule.family,
        "joined": dict(joined),
        "frozen": list(frozen),
    }
    write(description, {key: np.asarray(ops.convert_to_numpy(v)) for key, v in inventory.items()}, store)


def write(description: Description, arrays: Mapping[Key, np.ndarray], store: Any) -> None:
    """Write arrays under their numbers, and the description of them: also of what was loaded and not restored yet."""
    for i, array in enumerate(arrays.values()):
        store[str(i)] = array
    listed = {"variables": list(arrays), "crc32": [_checksum(array) for array in arrays.values()]}
    store["metadata"] = np.frombuffer(json.dumps(description | listed).encode(), np.uint8)


def load(store: Any) -> tuple[Description, dict[Key, np.ndarray]] | None:
    """The description and the arrays of a store; `None` for an empty one.

    Raises:
        CheckpointError: written by another optimizer, or in a newer format.
    """
    keys = list(store.keys())
    if not keys:
        return None
    if "metadata" not in keys:
        raise CheckpointError(
            f"the file holds {len(keys)} optimizer variables without a description: they were saved by another "
            "optimizer than those of capibara_keras"
        )
    try:
        description = json.loads(np.asarray(store["metadata"]).tobytes().decode())
    except ValueError as error:
        raise CheckpointError(f"the file is damaged: its description cannot be read ({error})") from error
    if description["format"] > FORMAT:
        raise CheckpointError(f"the file has format {description['format']}; this version reads up to {FORMAT}")
    arrays = {tuple(key): np.asarray(store[str(i)]) for i, key in enumerate(description["variables"])}
    sums = description.get("crc32", [])  # earlier versions wrote none
    damaged = [_show(key) for (key, array), crc in zip(arrays.items(), sums, strict=False) if _checksum(array) != crc]
    if damaged:
        raise CheckpointError(f"the file is damaged: {', '.join(damaged)}")
    if ("micro_step", "") in arrays and ("window_weight", "") not in arrays:  # before micro-batches had weights
        arrays["window_weight", ""] = np.asarray(arrays["micro_step", ""], "float32")
    return description, arrays


def restore(
    inventory: Mapping[Key, Variable],
    configuration: OptimizerConfig,
    description: Description,
    arrays: Mapping[Key, np.ndarray],
) -> dict[str, int]:
    """Assign saved arrays to state variables: by path, else by position where everything else agrees.

    Returns:
        For variables that came in later, how many updates there had been.

    Raises:
        CheckpointError: they do not belong together; nothing is written.
    """
    spare = {key for key in arrays if key[1] in description.get("frozen", ()) and key not in inventory}
    arrays = {key: array for key, array in arrays.items() if key not in spare}
    rename = _by_position(inventory, arrays)
    if ("counters", "") not in arrays:  # saved before it was built
        arrays = {key: array for key, array in arrays.items() if key in inventory}
    else:
        family = description["family"]
        if family != configuration.rule.family:
            raise CheckpointError(
                f"the state was saved by algorithm {family!r}, this is {configuration.rule.family!r}. {_INSTEAD}"
            )
        arrays = {(name, rename.get(path, path)): array for (name, path), array in arrays.items()}
        _check(inventory, arrays)
    for key, array in arrays.items():
        if key in inventory and inventory[key].shape == array.shape:
            inventory[key].assign(array)
    return {rename.get(path, path): updates for path, updates in description.get("joined", {}).items()}


def _by_position(inventory: Mapping[Key, Variable], arrays: Mapping[Key, np.ndarray]) -> dict[str, str]:
    """Paths of `arrays` -> those of `inventory`, if these are others: a second model has dense_1 for dense."""
    ours, theirs = _paths(inventory), _paths(arrays)
    if len(ours) != len(theirs) or set(ours) == set(theirs):
        return {}
    return dict(zip(theirs, ours, strict=True))


def _paths(keys: Mapping[Key, Any]) -> list[str]:
    return list(dict.fromkeys(path for _, path in keys if path))


def _check(inventory: Mapping[Key, Variable], arrays: Mapping[Key, np.ndarray]) -> None:
    """Raise unless every variable that matters is there with its shape."""
    complaints = []
    for key, variable in inventory.items():
        if key in arrays and key[1] and tuple(variable.shape) != arrays[key].shape:
            complaints.append(f"{_show(key)}: shape {arrays[key].shape} in the file, {tuple(variable.shape)} here")
        elif key not in arrays and not _is_optional(key):
            complaints.append(f"{_show(key)}: not in the file")
    complaints += [f"{_show(key)}: only in the file" for key in arrays if not (key in inventory or _is_optional(key))]
    pending = arrays.get(("micro_step", ""))
    if pending is not None and pending > 0 and ("micro_step", "") not in inventory:
        complaints.append(f"{pending} accumulated micro-batches: this optimizer has no gradient_accumulation_steps")
    if complaints:
        raise CheckpointError("the saved state does not fit this optimizer:\n  " + "\n  ".join([*complaints, _INSTEAD]))


def _is_optional(key: Key) -> bool:
    return key[0] in OPTIONAL or key[0].startswith(OWN)


def _checksum(array: np.ndarray) -> int:
    """Of values; a store may turn bfloat16 into raw bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _show(key: Key) -> str:
    name, path = key
    return f"{name} of {path}" if path else name

"""Reading TensorBoard's event files back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["read"]


def read(directory: Path) -> dict[str, list[tuple[int, Any]]]:
    """(step, value) pairs by "plugin tag", of all event files in a directory."""
    import tensorflow as tf

    found: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted(directory.glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                key = f"{value.metadata.plugin_data.plugin_name} {value.tag}"
                found.setdefault(key, []).append((event.step, tf.make_ndarray(value.tensor).item()))
    return found

"""Event files for TensorBoard, through TensorFlow's writer; also where Keras computes with another backend."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from capibara_keras import errors
from capibara_keras.files import writable_directory

__all__ = ["SUFFIX", "SummaryWriter"]

SUFFIX = ".capibara"
"""Ending of the event files that are written here."""


class SummaryWriter:
    """Writes numbers and texts by update. The package `tensorboard` is not needed for that.

    Args:
        directory: of its own: it is made, and must hold no event files of other writers, which TensorBoard would mix
            with these.

    Raises:
        ConfigError: TensorFlow is not installed, the directory cannot be written, or has files of others.
    """

    def __init__(self, directory: str | Path) -> None:
        self.tf = _tensorflow()
        self.directory = writable_directory("log_dir", directory)
        foreign = [p.name for p in sorted(self.directory.glob("*tfevents*")) if not p.name.endswith(SUFFIX)]
        if foreign:
            raise errors.ConfigError(
                f"log_dir: {str(directory)!r} has event files of another writer, {foreign[0]}; choose another directory"
            )
        with self.tf.device("CPU:0"):
            self._writer = self.tf.summary.create_file_writer(str(self.directory), filename_suffix=SUFFIX)

    def write(self, step: int, numbers: Mapping[str, float], texts: Mapping[str, str] | None = None) -> None:
        """Numbers and texts of one step, by tag.

        Args:
            step: ≥ 0.
        """
        summary = self.tf.compat.v1.Summary()
        for tag, number in numbers.items():
            self._add(summary, tag, self.tf.make_tensor_proto(number, "float32"), "scalars", 1)
        for tag, text in (texts or {}).items():
            self._add(summary, tag, self.tf.make_tensor_proto(text.encode(), "string"), "text", 2)
        with self.tf.device("CPU:0"), self._writer.as_default():
            self.tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step)

    def _add(self, summary: Any, tag: str, tensor: Any, plugin: str, kind: int) -> None:
        """One value, as the summaries of TensorFlow 2 are: with the name of the plugin that shows it."""
        metadata = self.tf.compat.v1.SummaryMetadata(data_class=kind)
        metadata.plugin_data.plugin_name = plugin
        summary.value.add(tag=tag, tensor=tensor, metadata=metadata)

    def flush(self) -> None:
        """Have what was written in the file."""
        self._writer.flush()

    def close(self) -> None:
        """The last thing to do; a second time does nothing."""
        self._writer.close()


def _tensorflow() -> Any:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise errors.ConfigError(
            f"TensorBoard's event files are written by TensorFlow, which cannot be imported: {error}. Install "
            "`tensorflow-cpu`; Keras goes on with its backend"
        ) from error
    if keras.backend.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # it is at work already, and has what it wants
            tf.config.set_visible_devices([], "GPU")  # it would take the memory that the backend needs
    return tf

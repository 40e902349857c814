"""matplotlib figures without pyplot, so that nothing global changes and no window opens; and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from capibara_keras import errors
from capibara_keras.files import writable_directory, write_whole

__all__ = ["new", "save"]

KINDS = ("pdf", "png", "svg")
"""Endings of files that figures can be written to."""


def new(width: float = 8.0, height: float = 4.5) -> Any:
    """An empty figure.

    Args:
        width, height: in inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | Path | None) -> Any:
    """The figure, written to a file if there is a path. Its directory is made; no reader sees half a file.

    Args:
        path: ends in .png, .svg or .pdf.

    Raises:
        ConfigError: another ending, or the file cannot be written.
    """
    if path is None:
        return figure
    target = Path(path)
    kind = errors.choice("ending of path", target.suffix.lower().removeprefix("."), KINDS)
    writable_directory("path", target.parent)
    write_whole(target, lambda file: figure.savefig(file, format=kind, dpi=150), "path")
    return figure

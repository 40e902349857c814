"""matplotlib figures without pyplot, so that nothing global changes and no window opens; and files of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from capibara_keras import errors

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
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, format=kind, dpi=150)
        os.replace(temporary, target)
    except OSError as error:
        raise errors.ConfigError(f"path: cannot write {str(path)!r}: {error.strerror}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)
    return figure

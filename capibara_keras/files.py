"""Files that are whole, and directories that can be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from capibara_keras import errors

__all__ = ["writable_directory", "write_whole"]


def write_whole(path: Path, write: Callable[[Path], Any], argument: str | None = None) -> None:
    """A file that is either the old one or the new one, whenever the process dies.

    Args:
        path: of the file.
        write: writes to the path that it is given, in the same directory and with the same ending.
        argument: what named the path, for the error.

    Raises:
        OSError: it cannot be written; what was there is as before.
        ConfigError: the same, where `argument` is given.
    """
    temporary = path.with_name(f"writing_{os.getpid()}_{path.name}")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if argument is None:
            raise
        raise errors.ConfigError(f"{argument}: cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def writable_directory(argument: str, directory: str | os.PathLike[str]) -> Path:
    """The directory, made if it is not there.

    Args:
        argument: what named it, for the error.

    Raises:
        ConfigError: it cannot be made or written.
    """
    folder = Path(directory)
    probe = folder / f"writing_{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")  # what the permissions say is not what every file system does
        probe.unlink()
    except OSError as error:
        raise errors.ConfigError(f"{argument}: cannot write in {str(folder)!r}: {error.strerror}") from error
    return folder

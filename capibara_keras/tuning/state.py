"""The file that a search is kept in: replaced as a whole, with the one before beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from capibara_keras.errors import ConfigError
from capibara_keras.files import writable_directory, write_whole
from capibara_keras.warning import warn

__all__ = ["FORMAT", "Project"]

FORMAT = 1
"""Of the file; raised when an older version of the package could not read it."""


class Project:
    """The folder of a search.

    Args:
        folder: made when something is written, if it is not there.

    Raises:
        ConfigError: not the name of a folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise ConfigError(f"directory: expected the name of a folder, received {folder!r}")
        self.folder = Path(folder)
        self.path = self.folder / "search.json"
        self.backup = self.folder / "search.backup.json"

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state; the one before becomes the backup. The main file is there at every moment."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, **state}, allow_nan=False, separators=(",", ":"))
        if self.path.exists() and _content(self.path) is not None:
            write_whole(self.backup, lambda path: shutil.copyfile(self.path, path))
        write_whole(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def load(self) -> dict[str, Any] | None:
        """The state; that of the backup if the file is damaged; `None` if there is neither.

        Raises:
            ConfigError: both are damaged, or the folder holds something else. Nothing is changed then.
        """
        present = [path for path in (self.path, self.backup) if path.exists()]
        for path in present:
            state = _content(path)
            if state is not None:
                if state["format"] != FORMAT:
                    raise ConfigError(
                        f"{path}: is of format {state['format']!r}, and this version of capibara_keras reads {FORMAT}"
                    )
                if path is self.backup:
                    warn(f"{self.path} is damaged or missing: going on from {self.backup.name}")
                return state
        if present:
            raise ConfigError(
                f"{' and '.join(map(str, present))} cannot be read as a search: damaged, or of another program. Choose "
                "another directory, or give overwrite=True to start afresh"
            )
        return None

    def clear(self) -> None:
        """Remove what a search has written, and nothing else."""
        for path in (self.path, self.backup, *self.folder.glob("best_*.weights.h5")):
            path.unlink(missing_ok=True)

    def weights(self, number: int) -> Path:
        """Where the weights of a trial are."""
        return self.folder / f"best_{number:04d}.weights.h5"

    def keep_only(self, numbers: Collection[int]) -> None:
        """Remove the weights of all other trials, and what a killed process has left half written."""
        kept = {self.weights(number) for number in numbers}
        for path in self.folder.glob("best_*.weights.h5"):
            if path not in kept:
                path.unlink(missing_ok=True)
        for path in self.folder.glob("writing_*"):
            if not _alive(path.name.split("_")[1]):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine from searching in the same folder. The lock ends with the process.

        Raises:
            ConfigError: another one does, or the folder cannot be written.
        """
        folder = writable_directory("directory", self.folder)
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with open(folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(f"{self.folder}: another process searches in this directory now") from error
            yield


def _content(path: Path) -> dict[str, Any] | None:
    """What is in a file, `None` if that is not a search."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and {"format", "search", "trials"} <= state.keys() else None


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True

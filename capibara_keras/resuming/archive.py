"""One file for a whole run: JSON, arrays, and a digest that tells a damaged file from a good one.

    "capibara_keras run\\n"  8 bytes: length of the JSON, little-endian  JSON  the arrays' bytes  SHA-256 of all before

Nothing in it is code, and no pickle is ever read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from capibara_keras.errors import CheckpointError
from capibara_keras.warning import warn

__all__ = ["FORMAT", "load", "read", "remove", "save", "write"]

FORMAT = 1
"""Version of the file; a reader refuses what is newer than itself."""

MAGIC = b"capibara_keras run\n"
LATEST, PREVIOUS = "latest.run", "previous.run"
CHUNK = 1 << 24


def write(path: Path, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file, and wait until it is on the disk.

    Args:
        path: of the file.
        description: plain data.
        arrays: by name.
    """
    contents = {name: np.asarray(array) for name, array in arrays.items()}
    table = [[name, array.dtype.name, list(array.shape)] for name, array in contents.items()]
    head = json.dumps({"format": FORMAT, "description": description, "arrays": table}).encode()
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for part in (MAGIC, len(head).to_bytes(8, "little"), head, *map(_bytes, contents.values())):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a file.

    Raises:
        CheckpointError: it is damaged, of another program, or of a newer format.
    """
    with open(path, "rb") as file:
        _verify(file, path)
        file.seek(len(MAGIC))
        size = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(size))
        if head["format"] > FORMAT:
            raise CheckpointError(f"{path}: has format {head['format']}; this version reads up to {FORMAT}")
        arrays = {}
        for name, dtype, shape in head["arrays"]:
            kind = _dtype(dtype)
            data = bytearray(file.read(math.prod(shape) * kind.itemsize))
            arrays[name] = np.frombuffer(data, kind).reshape(shape)
    return head["description"], arrays


def save(folder: Path, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the latest state of a run; the one before is kept. Whenever the process dies, a whole one is there.

    Raises:
        OSError: the disk is full, or the folder cannot be written; what was there is as before.
    """
    temporary, latest = folder / f"writing-{os.getpid()}.run", folder / LATEST
    try:
        write(temporary, description, arrays)
        if latest.exists():
            os.replace(latest, folder / PREVIOUS)
        os.replace(temporary, latest)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The latest state of a run, or the one before if that is damaged; `None` if there is none.

    Raises:
        CheckpointError: both are damaged.
    """
    problems = []
    for name in (LATEST, PREVIOUS):
        path = folder / name
        try:
            found = read(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (CheckpointError, OSError) as error:
            problems.append(str(error))
            continue
        if problems:
            warn(f"{problems[0]}: going on from {name}")
        return found
    if problems:
        raise CheckpointError(f"no saved state can be read: {'; '.join(problems)}. Remove {folder} to start afresh")
    return None


def remove(folder: Path) -> None:
    """Remove the files of a run, and the folder if nothing else is in it."""
    for name in (LATEST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _verify(file: BinaryIO, path: Path) -> None:
    """Raise unless the file begins as it should, and its digest is right."""
    size = os.fstat(file.fileno()).st_size
    if file.read(len(MAGIC)) != MAGIC:
        raise CheckpointError(f"{path}: is not a file that Resume wrote, or damaged")
    digest, left = hashlib.sha256(MAGIC), size - len(MAGIC) - 32
    while left > 0:
        part = file.read(min(CHUNK, left))
        digest.update(part)
        left -= len(part)
    if left < 0 or digest.digest() != file.read(32):
        raise CheckpointError(f"{path}: is damaged or not complete ({size} bytes)")


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _dtype(name: str) -> np.dtype:
    """By its name; those that NumPy has not are in `ml_dtypes`, which Keras needs too."""
    try:
        return np.dtype(name)
    except TypeError:
        return np.dtype(getattr(ml_dtypes, name))

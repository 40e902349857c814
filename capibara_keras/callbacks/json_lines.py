"""One JSON object per line, appended as a run goes."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.warning import warn

__all__ = ["JsonLines"]


class JsonLines:
    """Appends objects to a file; what is not known (nan) or not finite is null.

    Args:
        path: of the file; its directory is made.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self._failed = Path(path), False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise errors.ConfigError(f"path: cannot write {str(path)!r}: {error.strerror}") from error

    def write(self, objects: Iterable[dict[str, Any]]) -> None:
        """Append, so that a reader sees whole lines only. A disk that is full ends the file, not the training."""
        lines = [json.dumps(_plain(item), allow_nan=False) + "\n" for item in objects]
        if lines and not self._failed:
            try:
                self._file.write("".join(lines))
                self._file.flush()
            except OSError as error:
                self._failed = True
                warn(f"{self.path} ends here, the run goes on: {error}")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is still in its buffer
            self._file.close()


def _plain(x: Any) -> Any:
    """Python's own types, null for numbers that JSON has not.

    >>> _plain({"a": float("nan"), "b": [1.0]})
    {'a': None, 'b': [1.0]}
    """
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(value) for value in x]
    if isinstance(x, np.generic):
        x = x.item()
    return None if isinstance(x, float) and not math.isfinite(x) else x

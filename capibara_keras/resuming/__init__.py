"""What `Resume` writes, and data whose position is known."""

from __future__ import annotations

from capibara_keras.resuming.archive import FORMAT, load, read, save, write
from capibara_keras.resuming.data import ResumableData

__all__ = ["FORMAT", "ResumableData", "load", "read", "save", "write"]

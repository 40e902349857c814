"""From an optimizer's rings to a monitor."""

from __future__ import annotations

from capibara_keras.watch.watch import Watch

__all__ = ["Watch"]

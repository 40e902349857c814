"""The learning-rate range test on a compiled model, which it leaves as it was."""

from __future__ import annotations

from capibara_keras.rate_test.range_test import range_test

__all__ = ["range_test"]

"""What holds for the process of all tests."""

from __future__ import annotations

import gc

# Thousands of compiled functions live in one process: a full collection at the usual rate stops a test for 20 seconds.
gc.set_threshold(100_000, 20, 100)

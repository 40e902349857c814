"""How fast an update is, beside others that do the same: `python -m benchmarks`."""

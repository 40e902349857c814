"""Proof that it holds: `python -m benchmarks.reliability`; see docs/reliability.md."""

"""Benchmarks of the auto-tuner."""

"""Labelled small trainings, healthy and sick, that the health rules are measured on: `python -m benchmarks.health`.

Half of the tasks were used to choose thresholds; the other half, with seeds of its own, was not.
"""

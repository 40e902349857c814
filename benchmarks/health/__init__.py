"""Labelled small trainings, healthy and sick, that the health rules are measured on: `python -m benchmarks.health`.

One part of the tasks was used to choose thresholds; the held-out half, with seeds of its own, was not; the blind part
was looked at once, when all rules were as they are.
"""

"""All kinds of trainings: what is made of which tasks, and the alerts that it deserves."""

from __future__ import annotations

from benchmarks.health.healthy_cases import HEALTHY
from benchmarks.health.sick_cases import SICK

__all__ = ["CASES"]

CASES = (*HEALTHY, *SICK)

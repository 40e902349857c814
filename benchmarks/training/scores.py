"""From runs to numbers: medians, and performance profiles (Dolan & Moré 2002) with their score as in AlgoPerf."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

__all__ = ["LONGEST", "costs", "profile", "ranked", "score"]

Measure = Literal["updates", "seconds"]

LONGEST = 4.0
"""Profiles end at so many times the best (Dahl et al. 2023, Section 4.2)."""


def costs(results: Mapping[str, Mapping[str, Any]], measure: Measure) -> dict[str, dict[str, float]]:
    """Contender -> workload -> updates or seconds to the target: the median over seeds, infinite for a failure."""
    found: dict[str, dict[str, float]] = {}
    for workload, races in results.items():
        seconds = seconds_per_update(races) if measure == "seconds" else dict.fromkeys(races, 1.0)
        for contender, race in races.items():
            reached = [math.inf if run["reached"] is None else run["reached"] for run in race["seeds"]]
            found.setdefault(contender, {})[workload] = _median(reached) * seconds[contender]
    return found


def seconds_per_update(races: Mapping[str, Any]) -> dict[str, float]:
    """Contender -> seconds, as on a machine that does nothing else.

    Every run times its evaluations too, which are the same work for all: an update is measured in evaluations (the
    median over a contender's runs), and an evaluation is what it took in the fastest run of all.
    """
    runs = {name: [*race["trials"], *race["seeds"]] for name, race in races.items()}
    fastest = min(run["seconds_per_evaluation"] for each in runs.values() for run in each)
    ratios = {
        name: [run["seconds_per_update"] / run["seconds_per_evaluation"] for run in each] for name, each in runs.items()
    }
    return {name: statistics.median(each) * fastest for name, each in ratios.items()}


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.inf


def ratios(costs: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    """Contender -> its costs over those of the best contender, by workload."""
    workloads = next(iter(costs.values()))
    best = {w: min(row[w] for row in costs.values()) for w in workloads}
    return {
        name: [row[w] / best[w] if math.isfinite(row[w]) else math.inf for w in workloads]
        for name, row in costs.items()
    }


def profile(ratios: Sequence[float]) -> tuple[list[float], list[float]]:
    """The share of workloads that are done within a multiple of the best: a staircase from 1 to `LONGEST`."""
    steps = sorted(r for r in ratios if r <= LONGEST)
    x = [1.0, *steps, LONGEST]
    y = [sum(r <= at for r in ratios) / len(ratios) for at in x]
    return x, y


def score(ratios: Sequence[float]) -> float:
    """The area under the profile: 1 for who is best everywhere, 0 for who is never within `LONGEST` times the best."""
    return sum(LONGEST - r for r in ratios if r <= LONGEST) / (LONGEST - 1) / len(ratios)


def ranked(costs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Contender -> score, the best first."""
    found = {name: score(row) for name, row in ratios(costs).items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))

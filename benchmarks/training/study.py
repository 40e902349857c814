"""All contenders on all workloads with equal budgets; what is done is in a file, and is not done again."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.training.contenders import Contender
from benchmarks.training.racing import Race, Run
from benchmarks.training.workloads import WORKLOADS, Workload

__all__ = ["EXPONENTS", "SEEDS", "rates", "read", "run"]

EXPONENTS = (0, 1, -1, 2, -2, 3, -3)
"""A contender's rates are its default times the square root of ten to these powers, in this order."""

SEEDS = (1, 2, 3)
"""Of weights and batches in the runs at the best rate. Trials have seed 0."""

Results = dict[str, dict[str, dict[str, Any]]]


def rates(contender: Contender) -> list[float]:
    """The trials' rates, the default first."""
    return [contender.rate * math.sqrt(10) ** k for k in EXPONENTS]


def run(path: Path, contenders: Iterable[Contender], workloads: Iterable[str], limit: float = math.inf) -> bool:
    """Whether all is done; after `limit` seconds no race is begun. Results are written after each."""
    begun = time.monotonic()
    results, contenders, workloads = read(path), list(contenders), list(workloads)
    left = [(w, c) for w in workloads for c in contenders if c.name not in results.get(w, {})]
    for number, (name, contender) in enumerate(left):
        spent = time.monotonic() - begun
        if spent > limit:
            return False
        eta = f", {spent / number * (len(left) - number) / 60:.0f} min left" if number else ""
        print(f"[{number + 1}/{len(left)}{eta}] {name}: {contender.name}", flush=True)
        results.setdefault(name, {})[contender.name] = race(contender, WORKLOADS[name])
        write(path, results)
    return True


def race(contender: Contender, workload: Workload) -> dict[str, Any]:
    """Trials of all rates, and the seeds with the best one.

    A trial ends where an earlier one reached the target: it cannot win any more. Without a trial that reached it
    there are no seeds: the contender failed.
    """
    course, trials, best = Race(contender, workload), [], None
    for rate in rates(contender):
        trials.append(course.run(rate, seed=0, steps=None if best is None else best.reached))
        best = min((trial for trial in trials if trial.reached), key=place, default=None)
    seeds = [] if best is None else [course.run(best.rate, seed) for seed in SEEDS]
    rate = None if best is None else best.rate
    return {"rate": rate, "trials": [plain(t) for t in trials], "seeds": [plain(s) for s in seeds]}


def place(trial: Run) -> tuple[float, float]:
    """For comparing trials that reached the target: who was there first, at the lower loss."""
    return trial.reached or math.inf, trial.curve[-1]


def plain(found: Run) -> dict[str, Any]:
    """As data: five digits are enough, and a loss that is not finite is null."""
    data = asdict(found)
    data["curve"] = [float(f"{x:.5g}") if math.isfinite(x) else None for x in found.curve]
    return data


def read(path: Path) -> Results:
    """Workload -> contender -> what `race` found."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, results: Results) -> None:
    """All at once, so that an interruption leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, allow_nan=False))
    temporary.replace(path)

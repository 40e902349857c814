"""Regret of the search algorithms on synthetic objectives: how far above the minimum the configuration is, without
noise, that a search would return."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np

from benchmarks.tuning.functions import FUNCTIONS, NOISE
from capibara_keras.tuning.algorithms import propose
from capibara_keras.tuning.trials import Search, TrialRecord

AFTER = (15, 30, 50)
"""Trials after which the regret is read."""


def search(function: str, algorithm: str, seed: int, trials: int = 50) -> dict[str, object]:
    """One search: regret after each trial, seconds of CPU per suggestion, proposals that diverged."""
    objective = FUNCTIONS[function]
    rng = np.random.default_rng([seed, sum(map(ord, function))])
    noise = rng.normal(0, NOISE, trials)
    records: list[TrialRecord] = []
    regret, seconds, best, here = [], [], math.inf, math.nan
    for number in range(trials):
        start = time.process_time()
        options = propose(algorithm, Search(objective.space, records, False, trials, seed), number)
        seconds.append(time.process_time() - start)
        assert options is not None
        true = objective.loss(objective.space, options)
        diverged = not math.isfinite(true)
        score = math.nan if diverged else true + noise[number]
        records.append(TrialRecord(number, options, "diverged" if diverged else "completed", score))
        if score < best:
            best, here = score, true
        regret.append(here)
    late = [t.status == "diverged" for t in records[8:]]
    return {"regret": [regret[n - 1] for n in AFTER if n <= trials], "seconds": seconds[-1], "diverged": np.mean(late)}


def run(results: Path, functions: list[str], algorithms: list[str], seeds: range, limit: float) -> None:
    """Do the searches that `results` does not hold yet, for at most `limit` seconds."""
    known = json.loads(results.read_text()) if results.exists() else {}
    start = time.monotonic()
    for seed in seeds:
        for algorithm in algorithms:
            for function in functions:
                key = f"{function}/{algorithm}/{seed}"
                if key not in known and time.monotonic() - start < limit:
                    known[key] = search(function, algorithm, seed)
                    results.write_text(json.dumps(known))


def table(results: Path) -> str:
    """Median regret after 15/30/50 trials, and the geometric mean over functions against each other algorithm."""
    known = json.loads(results.read_text())
    algorithms = list(dict.fromkeys(key.split("/")[1] for key in known))
    lines = ["| | " + " | ".join(algorithms) + " |", "|---" * (len(algorithms) + 1) + "|"]
    last: dict[str, dict[str, float]] = {a: {} for a in algorithms}
    for function in FUNCTIONS:
        cells = []
        for algorithm in algorithms:
            rows = [v["regret"] for k, v in known.items() if k.startswith(f"{function}/{algorithm}/")]
            medians = np.nanmedian(np.array(rows, float), axis=0) if rows else []
            cells.append("/".join(f"{x:.3f}" for x in medians) + (f" ({len(rows)})" if rows else ""))
            if rows:
                last[algorithm][function] = max(float(medians[-1]), 1e-4)
        lines.append(f"| {function} | " + " | ".join(cells) + " |")
    ours = last["bayesian_optimization"]
    cells = []
    for algorithm in algorithms:
        shared = [f for f in ours if f in last[algorithm]]
        ratio = np.exp(np.mean([math.log(ours[f] / last[algorithm][f]) for f in shared])) if shared else math.nan
        cells.append(f"{ratio:.2f}")
    lines.append("| ours / theirs at 50 | " + " | ".join(cells) + " |")
    cells = []
    for algorithm in algorithms:
        cells.append(f"{np.median([v['seconds'] for k, v in known.items() if k.split('/')[1] == algorithm]):.3f}")
    lines.append("| CPU s of the 50th suggestion | " + " | ".join(cells) + " |")
    cells = []
    for algorithm in algorithms:
        cells.append(f"{np.mean([v['diverged'] for k, v in known.items() if k.startswith(f'cliff/{algorithm}/')]):.2f}")
    lines.append("| cliff: share of proposals after the 8th that diverge | " + " | ".join(cells) + " |")
    return "\n".join(lines)

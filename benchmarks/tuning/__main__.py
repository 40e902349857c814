"""`python -m benchmarks.tuning regret --results FILE`, or another of the benchmarks: see `--help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.tuning import comparison, kills, regret, training
from benchmarks.tuning.functions import FUNCTIONS


def main() -> None:
    """Run a benchmark, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["regret", "training", "resources", "early_termination", "kills"])
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        help="of regret and training a file, else a folder; what is in it is not done again (kills: a new one)",
    )
    parser.add_argument("--algorithms", nargs="+", help="of regret and training; default: ours and random, or all")
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--limit", type=float, default=170, help="seconds after which no search is begun")
    given = parser.parse_args()
    if given.what == "resources":
        print(training.resources(given.results))
    elif given.what == "early_termination":
        print(training.replay(training.curves(given.results)))
    elif given.what == "kills":
        print(kills.run(given.results, given.kills))
    elif given.what == "training":
        comparison.run(given.results, given.algorithms or comparison.ALGORITHMS, range(given.seeds), given.limit)
        print(comparison.table(given.results))
    else:
        algorithms = given.algorithms or ["bayesian_optimization", "random"]
        regret.run(given.results, given.functions, algorithms, range(given.seeds), given.limit)
        print(regret.table(given.results))


if __name__ == "__main__":
    main()

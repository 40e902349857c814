"""`python -m benchmarks.tuning regret --results FILE`, or `resources` or `early_termination`: see `--help`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.tuning import regret, training
from benchmarks.tuning.functions import FUNCTIONS


def main() -> None:
    """Run a benchmark, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["regret", "resources", "early_termination"])
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("regret.json"),
        help="file, or for training a directory; kept",
    )
    parser.add_argument("--algorithms", nargs="+", default=["bayesian_optimization", "random"])
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--limit", type=float, default=170, help="seconds after which no search is begun")
    given = parser.parse_args()
    if given.what == "resources":
        print(training.resources(given.results))
        return
    if given.what == "early_termination":
        print(training.replay(training.curves(given.results)))
        return
    regret.run(given.results, given.functions, given.algorithms, range(given.seeds), given.limit)
    print(regret.table(given.results))


if __name__ == "__main__":
    main()

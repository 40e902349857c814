"""`python -m benchmarks.training`: trains what is not in the results yet; prints the table, draws the figures."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from benchmarks.training import report, study
from benchmarks.training.contenders import CONTENDERS
from benchmarks.training.workloads import WORKLOADS


def main() -> None:
    """Train, and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--results", type=Path, default=Path("runs/training/results.json"))
    parser.add_argument("--figures", type=Path, default=None, help="folder; default: beside the results")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no race is begun")
    parser.add_argument("--report", action="store_true", help="only report")
    given = parser.parse_args()
    chosen = [CONTENDERS[name] for name in given.contenders]
    if given.report or study.run(given.results, chosen, given.workloads, given.limit):
        print(report.write(study.read(given.results), given.figures or given.results.parent))


if __name__ == "__main__":
    main()

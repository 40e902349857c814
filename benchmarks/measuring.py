"""Contenders in turn, round after round: what one is compared with was measured a moment before or after."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class Worker:
    """A process of `benchmarks.worker`.

    Args:
        family: see `benchmarks.contenders.FAMILIES`.
        shapes: name in `benchmarks.shapes.SHAPES`.
        names: contenders.
        python: interpreter.
    """

    def __init__(self, family: str, shapes: str, names: Sequence[str], python: str = sys.executable) -> None:
        self.family = family
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "passive", "NUMPY_MADVISE_HUGEPAGE": "0"}
        self.log = log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", family, shapes, json.dumps(list(names))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | quiet,
        )
        self._answer()

    def ask(self, request: str) -> Any:
        """The answer to one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"the process of {self.family} ended:\n{self.log.read()[-2000:]}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def workers(wanted: Mapping[str, Sequence[str]], shapes: str, torch_python: str | None) -> Iterator[dict[str, Worker]]:
    """Family -> its process."""
    running: dict[str, Worker] = {}
    try:
        for family, names in wanted.items():
            python = torch_python if family == "torch" and torch_python else sys.executable
            running[family] = Worker(family, shapes, names, python)
        yield running
    finally:
        for worker in running.values():
            worker.close()


@dataclass(frozen=True)
class Ratio:
    """A ratio of two contenders: median over rounds, and its quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(times: Mapping[str, Sequence[float]], one: str, other: str) -> Ratio:
    """The time of `one` over that of `other`, round by round."""
    quotients = np.array(times[one]) / np.array(times[other])
    return Ratio(*(float(x) for x in np.percentile(quotients, (50, 25, 75))))


def steps(
    shapes: str, wanted: Mapping[str, Sequence[str]], rounds: int, torch_python: str | None = None
) -> dict[str, list[float]]:
    """Seconds of "family: contender", one per round."""
    times: dict[str, list[float]] = {}
    with workers(wanted, shapes, torch_python) as running:
        for done in range(rounds):
            print(f"\r{shapes}: round {done + 1} of {rounds}", end="", file=sys.stderr, flush=True)
            for family, names in wanted.items():
                for name in names:
                    worker = running[family]
                    worker.ask(name)  # caches are those of the one before
                    times.setdefault(f"{family}: {name}", []).append(worker.ask(name))
        print(file=sys.stderr)
    return times


def first(shapes: str, names: Sequence[str], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds to the first step, and operations of its graph; a fresh process each."""
    result = {}
    for name in names:
        answers = []
        for _ in range(repeats):
            worker = Worker("tensorflow", shapes, [])
            answers.append(worker.ask(f"first {name}"))
            worker.close()
        result[name] = {key: float(np.median([a[key] for a in answers])) for key in answers[0]}
    return result

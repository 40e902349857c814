"""`kill -9` at random moments of a search: does each restart go on as if nothing had been?

Run as a program (`python -m benchmarks.tuning.kills FOLDER`) it is the search that is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.tuning.training import SPACE, digits, network
from capibara_keras import OptimizerAutoTuner
from capibara_keras.tuning import TrialRecord

TRIALS, STEPS = 40, 64
SLOW = 0.02
"""Seconds that every flush to the disk takes longer, so that some kills come in mid-write."""


def search(folder: Path) -> list[TrialRecord]:
    """The search, or what is left of it."""
    tuner = OptimizerAutoTuner(SPACE, max_trials=TRIALS, directory=folder, verbose=0)
    tuner.find_optimal_hyperparameters(network(), *digits(), STEPS, batch_size=64)
    return tuner.trials


def run(folder: Path, kills: int = 20, seed: int = 0) -> str:
    """Kill a search again and again, let it end, and compare it with one that nobody killed.

    Every second kill waits until a half-written file is there; the others come at any moment.

    Returns:
        What was counted.

    Raises:
        RuntimeError: a restart failed, or the search proposed or measured something else.
    """
    folder.mkdir(parents=True)
    rng, done, writing, lost, ended = random.Random(seed), 0, 0, 0, 0
    killed = folder / "killed"
    while done < kills:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tuning.kills", str(killed)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        if child.stdout.readline() != "started\n":
            raise RuntimeError(f"the search did not go on after {done} kills")
        ended = _ended(killed)
        time.sleep(rng.uniform(0.0, 2.0))
        until = time.monotonic() + 5
        while done % 2 and not list(killed.glob("writing_*")) and time.monotonic() < until and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if child.returncode != -signal.SIGKILL:
            break  # it was over before
        done += 1
        writing += bool(list(killed.glob("writing_*")))
        lost += _ended(killed) < ended
    went_on, whole = search(killed), search(folder / "whole")
    for a, b in zip(went_on, whole, strict=True):
        if (a.options, a.status, a.curve["step"]) != (b.options, b.status, b.curve["step"]):
            raise RuntimeError(f"trial {a.number} is another one: {a.to_json()} instead of {b.to_json()}")
    return (
        f"{done} kills, {writing} of them in mid-write: every restart went on, {lost} lost a trial that had ended, and "
        f"all {len(whole)} proposals and their ends are those of the search that nobody killed"
    )


def _ended(folder: Path) -> int:
    """Trials whose end is on the disk."""
    for name in ("search.json", "search.backup.json"):
        try:
            return sum(t["status"] != "running" for t in json.loads((folder / name).read_text())["trials"])
        except (OSError, ValueError):
            continue
    return 0


def _program() -> None:
    flush = os.fsync

    def slow(file: int) -> None:
        time.sleep(SLOW)
        flush(file)

    os.fsync = slow
    print("started", flush=True)
    search(Path(sys.argv[1]))


if __name__ == "__main__":
    _program()

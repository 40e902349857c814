"""`kill -9` at random moments: in `fit`, in a save, with an open window, in a search. Then: resumed.

A parent that has imported everything, and run nothing, forks a process for each run: that costs a second, not ten.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.common import Ledger, network, regression, state

__all__ = ["run"]

EPOCHS, ROWS, BATCH = 2, 48, 4
MOST = 6
"""Kills of one run; each time it is resumed."""


def run(ledger: Ledger, count: int, seconds: float = math.inf) -> None:
    """Until there are `count` in the ledger, or for so many seconds."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    import capibara_keras  # noqa: F401

    end, generator = time.monotonic() + seconds, ledger.random("kill")
    expected: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as name:
        while ledger.count("kill") < count and time.monotonic() < end:
            for kind, train in KINDS.items():
                folder = Path(tempfile.mkdtemp(dir=name))
                if kind not in expected:
                    forked(train, folder / "whole", None)
                    expected[kind] = _end(folder / "whole")
                kills = 0
                while forked(train, folder / "run", generator.random()) == -signal.SIGKILL:
                    kills += 1
                    if kills == MOST:  # resumed runs were killed as well
                        break
                code = forked(train, folder / "run", None)
                found = _end(folder / "run") if code == 0 else []
                same = len(found) == len(expected[kind]) and all(
                    a.tobytes() == b.tobytes() for a, b in zip(found, expected[kind], strict=True)
                )
                failures = [] if same else [f"{kind}: exit code {code}, not the same bits"]
                ledger.add("kill", kills, failures, **{kind: kills, "runs": 1})


def forked(train: Callable[[Path, float | None], None], folder: Path, kill: float | None) -> int:
    """Run in a process of its own; its exit code, negative for a signal."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            train(folder, kill)
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fit(folder: Path, kill: float | None, *, in_save: bool = False, **options: Any) -> None:
    """Train to the end, or until a batch that `kill` in [0, 1) chooses; `in_save`: until some byte of a save."""
    import keras
    import tensorflow as tf

    import capibara_keras as ck
    from capibara_keras.resuming import archive

    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    model = network(ck.AdamW(0.01, weight_decay=0.1, clip_method="adaptive", **options), dropout=True, run_eagerly=True)
    resume = ck.Resume(folder / "state", every=2)
    data = resume.data(regression(ROWS), BATCH)
    total = EPOCHS * data.steps
    seen = {"epoch": 0}

    def begin(batch: int, logs: Any = None) -> None:
        if kill is not None and not in_save and seen["epoch"] * data.steps + batch >= 1 + int(kill * (total - 1)):
            os.kill(os.getpid(), signal.SIGKILL)

    if kill is not None and in_save:
        _kill_in_save(archive, kill, saves=1 + int(kill * 1000) % (total // 2))
    callbacks = [
        resume,
        keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: seen.update(epoch=epoch), on_train_batch_begin=begin
        ),
    ]
    model.fit(data, steps_per_epoch=data.steps, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks)
    np.savez(folder / "end.npz", *state(model))


def _kill_in_save(archive: Any, where: float, saves: int) -> None:
    """Die in that save: half written, not yet in place, or between the two renames."""
    write, replace, counts = archive.write, os.replace, {"write": 0, "replace": 0}

    def dying_write(path: Path, *contents: Any) -> None:
        write(path, *contents)
        counts["write"] += 1
        if counts["write"] == saves and where < 0.5:
            with contextlib.suppress(OSError):
                os.truncate(path, int(path.stat().st_size * 2 * where))
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_replace(source: Any, target: Any) -> None:
        replace(source, target)
        counts["replace"] += 1
        if counts["replace"] >= 2 * saves - 2 and where >= 0.5:
            os.kill(os.getpid(), signal.SIGKILL)

    archive.write, archive.os = dying_write, _Os(dying_replace)


class _Os:
    """The module `os` with another `replace`."""

    def __init__(self, replace: Callable[[Any, Any], None]) -> None:
        self.replace = replace

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def search(folder: Path, kill: float | None) -> None:
    """Save a search of twelve trials, one after the other; the process dies at a random moment."""
    from capibara_keras.tuning.state import Project

    project = Project(folder)
    done = project.load() or {"search": {}, "trials": {}}
    if kill is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.03 * kill)
    for number in range(len(done["trials"]), 12):
        value = float(np.random.default_rng(number).normal())
        done["trials"][str(number)] = {"score": value, "padding": "x" * 20000}
        project.save(done)
        time.sleep(0.002)
    signal.setitimer(signal.ITIMER_REAL, 0)
    again = project.load()
    np.savez(folder / "end.npz", np.array([trial["score"] for trial in again["trials"].values()]))


KINDS: dict[str, Callable[[Path, float | None], None]] = {
    "fit": fit,
    "accumulation": lambda folder, kill: fit(folder, kill, gradient_accumulation_steps=3, use_ema=True),
    "save": lambda folder, kill: fit(folder, kill, in_save=True),
    "search": search,
}


def _end(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "end.npz") as arrays:
        return [arrays[name] for name in arrays.files]

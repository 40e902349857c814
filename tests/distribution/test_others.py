"""Collectives, saving in mid-window, several workers, JAX devices, and lowering for a TPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.subprocess_runner import ROOT, run

HERE = Path(__file__).parent


def difference(a: list[Any], b: list[Any]) -> float:
    """Largest difference between two lists of weights."""
    return max(float(np.abs(np.array(x) - np.array(y)).max()) for x, y in zip(a, b, strict=True))


def test_one_all_reduce_per_update() -> None:
    """With accumulation no collective runs but in the branch of the update: one per replica."""
    results = run(HERE / "collectives.py", devices=2)
    assert results["1"] == {"top": 2, "inner": {}}
    assert results["3"]["top"] == 0
    assert results["3"]["inner"] == {"cond": 2}


@pytest.mark.slow
def test_resume_in_mid_window_on_other_replicas(tmp_path: Path) -> None:
    """Saved with two micro-batches in the window on two replicas; goes on there, and on one device."""
    unbroken = run(HERE / "window.py", ["save", 2, tmp_path], devices=2)
    for replicas in (2, 1):
        assert difference(unbroken, run(HERE / "window.py", ["resume", replicas, tmp_path], devices=replicas)) < 1e-6


def worker(*arguments: Any) -> subprocess.Popen[str]:
    """A started worker."""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(HERE / "workers.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def ports() -> str:
    """Two free ports of this machine."""
    sockets = [socket.socket() for _ in range(2)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    found = ",".join(str(s.getsockname()[1]) for s in sockets)
    for s in sockets:
        s.close()
    return found


def finish(processes: list[subprocess.Popen[str]], timeout: float = 240) -> list[int]:
    """Exit codes; a process that does not end in time fails the test."""
    try:
        return [process.wait(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_two_workers(tmp_path: Path) -> None:
    """The weights of one process; after one is killed the other ends with an error; both resume in mid-window."""
    assert finish([worker(0, "", tmp_path, 0, 12, -1)]) == [0]
    alone = json.loads((tmp_path / "done_1_0.json").read_text())

    both = ports()
    codes = finish([worker(i, both, tmp_path, 0, 12, 7 if i else -1) for i in range(2)])
    assert codes[1] == 9
    assert codes[0] not in (0, 9)
    assert not (tmp_path / "done_2_0.json").exists()

    both = ports()
    assert finish([worker(i, both, tmp_path, 5, 12, -1) for i in range(2)]) == [0, 0]
    for i in range(2):
        assert difference(alone, json.loads((tmp_path / f"done_2_{i}.json").read_text())) < 1e-6


@pytest.mark.slow
def test_jax_devices() -> None:
    """Data and model parallel on eight devices: the weights of one, state laid out like its variable or spread."""
    results = run(HERE / "jax_devices.py", backend="jax", devices=8)
    assert max(results["weights"].values()) < 1e-6
    assert results["model parallel layouts agree"] is True
    assert results["hidden kernel is split"] is True
    for whole, here in results["zero"].values():
        assert here * 8 == whole
    assert results["weights are replicated"] is True


def test_lowers_for_tpu() -> None:
    """A whole train step lowers for a TPU without host callbacks or 64-bit numbers; a callback is refused."""
    results = run(HERE / "lowering.py", backend="jax")
    for name, found in results["cases"].items():
        assert found == {"custom_call": 0, "i64": 0, "f64": 0}, name
    assert results["callback"] == "refused"


def test_xla_program_on_tensorflow() -> None:
    """The compiled step holds nothing that needs the host; with a Python function it would not compile."""
    results = run(HERE / "lowering_tensorflow.py")
    assert results["found"] == {"custom-call": 0, "infeed": 0, "outfeed": 0}
    assert results["python function"] == "refused"

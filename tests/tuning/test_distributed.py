"""A chief and workers in processes of their own, one of which is killed; replicas in one process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.subprocess_runner import ROOT, run

WORKER = """
import json, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.tuning.common import search, tuner, network

found = tuner(Path(sys.argv[1]), trials=int(sys.argv[2]), lease=3.0)
if sys.argv[3] == "slow":
    from capibara_keras.tuning import runner
    on_epoch_end = runner._Watch.on_epoch_end
    def slow(self, epoch, logs=None):
        print("epoch", flush=True)
        time.sleep(0.5)
        on_epoch_end(self, epoch, logs)
    runner._Watch.on_epoch_end = slow
config = search(found, steps=16)
print(json.dumps([config, [(t.number, t.status) for t in found.trials]]), flush=True)
"""


def start(folder: Path, port: int, name: str, trials: int, pace: str = "fast") -> subprocess.Popen[str]:
    """A chief ("chief") or a worker."""
    environment = os.environ | {
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
        "KERASTUNER_TUNER_ID": name,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", WORKER.format(root=str(ROOT)), str(folder), str(trials), pace]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(processes: Sequence[subprocess.Popen[str]]) -> list[Any]:
    """What they print at the end."""
    results = []
    for process in processes:
        out, errors = process.communicate(timeout=150)
        assert process.returncode == 0, errors[-3000:]
        results.append(json.loads(out.strip().splitlines()[-1]))
    return results


@pytest.mark.slow
def test_a_worker_is_killed_for_good(tmp_path: Path) -> None:
    """In mid-trial. Its trial goes to the others, and the chief does not wait for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chief = start(tmp_path, port, "chief", 6)
    one, two = (start(tmp_path, port, name, 6, "slow") for name in ("one", "two"))
    assert two.stdout is not None
    while (line := two.stdout.readline()) != "epoch\n":
        assert line, "it ended before its first evaluation"
    time.sleep(0.2)
    two.send_signal(signal.SIGKILL)
    two.communicate()
    (config, trials), (theirs, _) = finished([chief, one])
    assert config == theirs and config["learning_rate"] > 0
    assert [number for number, _ in trials] == list(range(6))
    assert {status for _, status in trials} <= {"completed", "pruned"}
    assert len(list((tmp_path / "search").glob("best_*.weights.h5"))) == 1


REPLICAS = """
import json, sys, tempfile
from pathlib import Path
import tensorflow as tf
from tests.models import classifier
from tests.tuning.common import search, tuner
network = lambda: classifier("sgd")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = tuner(Path(tempfile.mkdtemp()), trials=3, early_termination="none")
search(one, network)
many = tuner(Path(tempfile.mkdtemp()), trials=3, early_termination="none")
search(many, network, distribution_strategy=strategy)
print(json.dumps([[t.curve["val_loss"] for t in found.trials] for found in (one, many)]))
"""


@pytest.mark.slow
def test_replicas_give_the_same_numbers() -> None:
    """Without dropout: each replica has its own."""
    one, many = run(REPLICAS, devices=2)
    for a, b in zip(one, many, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


JAX = """
import json, tempfile
from pathlib import Path
from tests.tuning.common import Traces, search, tuner, network
model, found = network(), tuner(Path(tempfile.mkdtemp()), trials=6)
config = search(found, model)
traces = next(layer.count for layer in model.layers if isinstance(layer, Traces))
print(json.dumps([config, [t.score for t in found.trials], traces]))
"""


@pytest.mark.slow
def test_jax() -> None:
    """One trace there too."""
    config, scores, traces = run(JAX, backend="jax")
    assert config["learning_rate"] > 0 and len(set(scores)) == 6
    assert traces == 1

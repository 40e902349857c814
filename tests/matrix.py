"""The supported versions, each in a virtual environment of its own: `make test-matrix`, or

    python tests/matrix.py [ROW...]     prints a table; the exit code is 1 if a row failed

The environments are in build/matrix, and stay there: the first run installs, later ones take minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "matrix"
COMMON = ["h5py", "hypothesis", "keras-tuner", "matplotlib", "pytest", "scikit-learn", "scipy"]
TESTS = [
    "tests/contract/test_fit.py",
    "tests/contract/test_private_names.py",
    "tests/clipping",
    "tests/test_stability.py",
]
"""What depends on Keras and TensorFlow most, in two minutes."""

RESUMED = ["tests/interrupted.py", "compare", "arrays"]
"""A run with accumulation, clipping, averages, a schedule and dropout, killed and resumed: no tests of one backend."""


SMOKE = """
import keras, numpy as np, capibara_keras as ck
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1)])
model.compile(ck.AdamW(1e-2, global_clipnorm=1.0, gradient_accumulation_steps=2, use_ema=True), "mse")
x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
history = model.fit(x, x.sum(1), epochs=4, verbose=0, callbacks=[ck.HealthMonitor(), ck.LogStatistics()])
assert history.history["loss"][-1] < history.history["loss"][0], history.history
"""
"""Training, for a backend that the tests are not run on."""


@dataclass(frozen=True)
class Row:
    """Packages, the backend, and arguments of Python."""

    packages: tuple[str, ...]
    backend: str
    commands: tuple[tuple[str, ...], ...]


PYTEST = ("-m", "pytest", "-q", *TESTS)
ROWS = {
    "oldest": Row(("tensorflow-cpu==2.19.1", "keras==3.12.0"), "tensorflow", (PYTEST, (*RESUMED, "tf.data"))),
    "newest": Row(("tensorflow-cpu", "keras"), "tensorflow", (PYTEST, (*RESUMED, "tf.data"))),
    "jax": Row(("jax", "keras"), "jax", (("-m", "pytest", "-q", "tests/migration"), (*RESUMED, "generator"))),
    "torch": Row(("torch", "keras"), "torch", (("-c", SMOKE), (*RESUMED, "generator", "loss scaling"))),
}


def prepare(name: str, row: Row) -> Path:
    """The row's Python, with what it needs."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = "\n".join([*row.packages, *COMMON])
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *row.packages, *COMMON], check=True)
        stamp.write_text(wanted)
    return python


def versions(python: Path) -> str:
    """Of what matters."""
    code = (
        "from importlib import metadata as m\n"
        "for n in ('keras', 'tensorflow-cpu', 'jax', 'torch', 'numpy'):\n"
        "    try: print(n, m.version(n), end=', ')\n"
        "    except m.PackageNotFoundError: pass"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.rstrip(", ")


def passed(python: Path, row: Row) -> bool:
    """Run the row's commands; `compare` prints what differs, which is nothing."""
    environment = os.environ | {"KERAS_BACKEND": row.backend, "PYTHONPATH": str(ROOT)}
    for command in row.commands:
        compares = command[:2] == tuple(RESUMED[:2])
        output = subprocess.PIPE if compares else None
        done = subprocess.run([python, *command], cwd=ROOT, env=environment, text=True, stdout=output)
        differing = json.loads(done.stdout.strip().splitlines()[-1]) if compares and not done.returncode else {}
        if done.returncode or any(differing.values()):
            print(f"failed: {' '.join(command)} {differing}", file=sys.stderr)
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests the supported versions, and prints a table.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default: all")
    names = parser.parse_args().rows or list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"unknown row {unknown[0]!r}; there are {', '.join(ROWS)}")
    lines, good = ["| row | versions | seconds | result |", "| --- | --- | --- | --- |"], True
    for name in names:
        python = prepare(name, ROWS[name])
        start = time.monotonic()
        result = passed(python, ROWS[name])
        good = good and result
        seconds = time.monotonic() - start
        lines.append(f"| {name} | {versions(python)} | {seconds:.0f} | {'passed' if result else 'failed'} |")
    print("\n".join(lines))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())

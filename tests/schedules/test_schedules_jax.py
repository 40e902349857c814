"""The same table on JAX, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="this is JAX already")
def test_table_on_jax():
    pytest.importorskip("jax")
    table, chosen = str(HERE / "test_schedules_table.py"), "float64 or exact"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-k", chosen, table],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]

"""Python in a process of its own: for another backend, several devices, or a fresh start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_DEVICES = """
import tensorflow as tf
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * {devices})
"""


def run(
    code_or_path: str | Path,
    arguments: Sequence[Any] = (),
    *,
    backend: str = "tensorflow",
    devices: int = 1,
    env: Mapping[str, str] | None = None,
    timeout: float = 240,
) -> Any:
    """The JSON that a program prints as its last line on stdout.

    Args:
        code_or_path: source text, or the path of a file below the repository's root.
        arguments: `sys.argv[1:]` of the program.
        backend: of Keras.
        devices: logical CPU devices.
        env: more environment variables.
        timeout: seconds until the program is stopped, and the test fails.
    """
    code = code_or_path
    if isinstance(code_or_path, Path):
        code = f"import runpy; runpy.run_path({str(code_or_path)!r}, run_name='__main__')"
    if devices > 1 and backend == "tensorflow":
        code = _DEVICES.format(devices=devices) + str(code)
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    if devices > 1 and backend == "jax":
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    environment |= env or {}
    done = subprocess.run(
        [sys.executable, "-c", str(code), *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-6000:]}"
    lines = done.stdout.strip().splitlines()
    assert lines, f"nothing printed\n{done.stderr[-6000:]}"
    return json.loads(lines[-1])

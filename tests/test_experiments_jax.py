"""Landscapes, range tests and event files on JAX, in a process of its own, against TensorFlow in this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import experiments_on_jax
from tests.subprocess_runner import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jax() -> dict[str, Any]:
    return run(Path(experiments_on_jax.__file__), backend="jax")


def test_landscapes_are_those_of_tensorflow_and_leave_nothing_behind(jax: dict[str, Any]) -> None:
    """Also inside of `fit`, which holds the state on JAX."""
    here, there = experiments_on_jax.landscape(), jax["landscape"]
    np.testing.assert_allclose(here["line"], there["line"], rtol=1e-4)
    assert here["updates"] == there["updates"]
    for found in (here, there):
        assert found["same"] and found["undisturbed"]


def test_range_tests_are_those_of_tensorflow_and_leave_nothing_behind(jax: dict[str, Any]) -> None:
    here, there = experiments_on_jax.rates(), jax["rates"]
    np.testing.assert_allclose(here["losses"], there["losses"], rtol=1e-3)
    for found in (here, there):
        assert found["same"] and found["repeats"]


def test_event_files_are_those_of_tensorflow(jax: dict[str, Any]) -> None:
    here, there = experiments_on_jax.events(), jax["events"]
    assert list(here["steps"]) == there["steps"]
    np.testing.assert_allclose(here["norms"], there["norms"], rtol=1e-3)
    np.testing.assert_allclose(here["loss"], there["loss"], rtol=1e-3)

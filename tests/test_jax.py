"""The JAX backend, in a process of its own, against TensorFlow in this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import on_jax
from tests.subprocess_runner import run


@pytest.fixture(scope="module")
def jax() -> dict[str, Any]:
    return run(Path(on_jax.__file__), backend="jax")


@pytest.mark.parametrize("name", on_jax.FITS)
def test_fit_gives_the_weights_of_tensorflow(name: str, jax: dict[str, Any]) -> None:
    """Rates, windows, averages, callbacks included: the numbers differ by rounding."""
    here, there = on_jax.FITS[name](), jax[name]
    for a, b in zip(here["weights"], there["weights"], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert here["iterations"] == there["iterations"] > 0
    assert here["history"].keys() == there["history"].keys()
    for key, series in here["history"].items():
        np.testing.assert_allclose(series, there["history"][key], rtol=1e-3, atol=1e-6)


def test_stateless_apply(jax: dict[str, Any]) -> None:
    """Under jit it compiles once, gives what `apply` gives, and leaves the variables alone."""
    found = jax["stateless"]
    assert found["gap"] < 1e-6
    assert found["untouched"]
    assert found["compilations"] == 1
    assert found["updates"] == 1  # of windows of two: the first has a NaN, the last is not full


def test_raising_in_fit(jax: dict[str, Any]) -> None:
    """It names the variable; the weight is the one before the bad batch."""
    assert jax["raises"].startswith("update 1: the gradient is not finite in ")
    assert jax["raises"].endswith("kernel; weights and state are as before (-1.0)")


def test_refusals(jax: dict[str, Any]) -> None:
    shape, count = jax["refused"]
    assert shape.startswith("apply: the gradient of w0 has shape (3,), the variable (2, 3).")
    assert count.startswith(
        "stateless_apply: 3 variables, the optimizer is built on 2. If layers were frozen or unfrozen"
    )


def test_low_precision(jax: dict[str, Any]) -> None:
    """Codes and random bits are those of TensorFlow, up to entries at the edge of rounding; and XLA leaves the rest of
    Kahan's sum alone. The last place of bfloat16 at 0.9 is 2^-8."""
    here, there = on_jax.low_precision(), jax["low precision"]
    assert here.keys() == there.keys()
    assert abs(there.pop("kahan") - 0.9) <= 2.0**-8
    assert there.pop("plain") == 1.0
    for name, found in there.items():
        gap = np.abs(np.array(found) - here[name])
        assert gap.max() < 5e-3 and gap.mean() < 2e-5, name

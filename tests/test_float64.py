"""The reference values and the long runs in float64, where rounding cannot hide a mistake."""

from __future__ import annotations

from typing import Any

import keras
import pytest

from tests import subprocess_runner

REFERENCE_VALUES = 1e-9


def report(roads: list[str], long_runs_on: str) -> dict[str, Any]:
    """All errors, in a process whose backend computes in float64."""
    keras.config.set_floatx("float64")
    from tests import test_pipeline, test_reference_values

    return {
        "values": {
            f"{road}: {entry}": test_reference_values.error(entry, road, "float64")
            for road in roads
            for entry in test_reference_values.ENTRIES
        },
        "runs": {
            name: test_pipeline.excess(test_pipeline.errors(case, long_runs_on), "float64")
            for name, case in test_pipeline.CASES.items()
        },
    }


@pytest.mark.parametrize(
    ("backend", "roads", "long_runs_on"),
    [
        ("tensorflow", ["eager"], "without jit"),
        pytest.param("jax", ["eager", "stateless"], "fused", marks=pytest.mark.slow),
    ],
)
def test_in_float64(backend, roads, long_runs_on):
    code = f"""
import json
from tests import test_float64
print(json.dumps(test_float64.report({roads!r}, {long_runs_on!r})))
"""
    found = subprocess_runner.run(code, backend=backend, env={"JAX_ENABLE_X64": "1"})
    assert len(found["values"]) == 16 * len(roads) and len(found["runs"]) == 16
    assert {name: x for name, x in found["values"].items() if not x < REFERENCE_VALUES} == {}
    assert {name: beyond for name, beyond in found["runs"].items() if beyond} == {}

"""`MirroredStrategy`: the same weights as on one device, where Keras' own clipping gives others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.subprocess_runner import run

PROGRAM = Path(__file__).with_name("mirrored.py")
QUICK = [
    "everything",
    "loop:accumulate, clip",
    "nan:global norm",
    "nan:accumulate, drop",
    "loss scale",
    "twice:two points",
]
CASES = [
    "plain",
    "global norm",
    "value",
    "per parameter",
    "agc",
    "percentile",
    "accumulate",
    "accumulate, clip",
    "accumulate, clip micro-batches",
    "accumulate, drop",
    "decay",
    "average",
    "average, overwrite",
    "layer-wise",
    "two points",
    "everything",
]


def check(name: str, result: dict[str, Any]) -> None:
    """Equal to rounding; all replicas alike to the bit."""
    assert result["weights"] < 1e-6, (name, result)
    assert result["state"] < 1, (name, result)  # in units of rtol 1e-5 + atol 5e-6
    assert result["replicas"] == 0, (name, result)
    assert result["finite"], (name, result)
    assert result["updates"][0] == result["updates"][1], (name, result)
    assert result["skipped"][0] == result["skipped"][1], (name, result)


def test_two_replicas() -> None:
    """In `fit` and in a loop; a NaN in one sample on one replica is skipped, or dropped, on all. An algorithm with two
    points ends in the average on all, and the next `fit` goes back."""
    results = run(PROGRAM, [2, *QUICK, "Keras global norm"], devices=2)
    assert results.pop("Keras global norm")["weights"] > 1e-2  # clips each replica's part, then sums
    for name, result in results.items():
        check(name, result)
    assert results["nan:global norm"]["skipped"] == [1, 1]
    assert results["nan:accumulate, drop"]["dropped"] == 1
    assert results["everything"]["updates"] == [8, 8]


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("how", ["", "loop:", "nan:", "loop:nan:"])
def test_all_cases(replicas: int, how: str) -> None:
    """Every way of clipping, accumulating and averaging."""
    results = run(PROGRAM, [replicas, *(how + case for case in CASES)], devices=replicas, timeout=900)
    for name, result in results.items():
        check(name, result)

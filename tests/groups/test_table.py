"""What `describe` shows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from tests.groups.common import SHAPES, problem


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, with a line per variable, totals, and returned as rows."""
    ws, _ = problem(0)
    optimizer = ck.Optimizer(
        "adam",
        weight_decay=0.1,
        use_ema=True,
        gradient_accumulation_steps=2,
        groups=[{"pattern": "bias", "weight_decay": 0.0, "algorithm": "sgd"}],
        differential_learning_rates={"head": 2.5},
    )
    optimizer.build(ws)
    rows = optimizer.describe()
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "variable     shape   group  algorithm  rate x  decay  state bytes",
        "body/kernel  (3, 2)         Adam            1    0.1           96",  # 6 x 4 x (m, v, average, window)
        "body/bias    (2,)    bias   SGD             1      0           16",  # 2 x 4 x (average, window)
        "head/kernel  (2, 2)         Adam          2.5    0.1           64",
        "head/bias    (2,)    bias   SGD           2.5      0           16",
        "4 variables, 14 parameters, 192 bytes of state",
    ]
    assert [row.path for row in rows] == list(SHAPES)
    assert [row.shape for row in rows] == list(SHAPES.values())
    assert [row.group for row in rows] == ["", "bias", "", "bias"]
    assert [row["rate"] for row in rows] == [1.0, 1.0, 2.5, 2.5]
    assert [row.weight_decay for row in rows] == [0.1, 0.0, 0.1, 0.0]
    assert {row.dtype for row in rows} == {"float32"}


def test_the_table_shows_exclusions_from_decay() -> None:
    ws, _ = problem(0)
    optimizer = ck.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(ws)
    assert [row.weight_decay for row in optimizer.describe(lambda text: None)] == [0.1, 0.0, 0.1, 0.0]


@pytest.mark.parametrize(("algorithm", "of_vectors"), [("Muon", "AdamW"), ("Soap", "Adam")])
def test_the_table_shows_what_vectors_get(algorithm: str, of_vectors: str) -> None:
    ws, _ = problem(0)
    optimizer = ck.Optimizer(algorithm.lower(), adam_pattern="") if algorithm == "Muon" else ck.Soap()
    optimizer.build(ws)
    names = {len(row.shape): row.algorithm for row in optimizer.describe(lambda text: None)}
    assert names == {2: algorithm, 1: of_vectors}


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"algorithm": "sgd"}, 0),
        ({"algorithm": "sgd", "momentum": 0.9}, 4),
        ({"algorithm": "adam"}, 8),
        ({"algorithm": "adam", "amsgrad": True}, 12),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_bytes_of_state(options: dict[str, Any], size: int, dtype: str) -> None:
    """Extra bytes per parameter; the state of half-precision variables is kept in float32."""
    w = keras.Variable(np.zeros((5, 3)), dtype=dtype, name="w")
    optimizer = ck.Optimizer(**options)
    optimizer.build([w])
    (row,) = optimizer.describe(lambda text: None)
    assert row.state_bytes == 15 * size * (2 if dtype == "float64" else 1)
    assert row.dtype == dtype


def test_there_is_no_table_before_build() -> None:
    with pytest.raises(ck.ConfigError, match=r"describe: call `optimizer.build\(variables\)` first"):
        ck.Adam().describe()

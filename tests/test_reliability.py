"""A small piece of each part of `benchmarks.reliability`, so that what it found stays fixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from benchmarks.reliability import disk, files, fuzz, poison, untrusted
from benchmarks.reliability.common import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.json")


@pytest.mark.slow
def test_configurations_train_or_are_refused() -> None:
    outcomes, failures = fuzz.piece(30)
    assert failures == []
    assert sum(outcomes.values()) == 30


@pytest.mark.parametrize("case", disk.CASES, ids=lambda case: case.__name__)
def test_full_disks(case: Callable[[Path], str | None], tmp_path: Path) -> None:
    assert case(tmp_path) is None


def test_untrusted_configurations_run_nothing(ledger: Ledger) -> None:
    untrusted.run(ledger)
    assert ledger.entries["untrusted"] == {"count": 40, "failures": []}


@pytest.mark.slow
def test_damaged_files(ledger: Ledger) -> None:
    files.run(ledger, 40)
    entry = ledger.entries["files"]
    assert (entry["count"], entry["failures"]) == (40, [])
    assert entry["refused"] > 20


@pytest.mark.slow
def test_poisoned_batches(ledger: Ledger) -> None:
    poison.run(ledger, 1)
    assert ledger.entries["poison"]["failures"] == []
    assert ledger.count("poison") == poison.PIECE * len(poison.configurations())


class Store(dict):
    """As `.weights.h5` is for an optimizer."""


def test_a_damaged_state_of_the_optimizer_is_refused() -> None:
    """HDF5 has no checksums: a flipped bit in a moment would only be a wrong number."""
    w, store = keras.Variable([1.0, 2.0], name="w"), Store()
    optimizer = ck.Adam(0.5)
    optimizer.apply([keras.ops.array([1.0, 1.0])], [w])
    optimizer.save_own_variables(store)
    moment = next(key for key, a in store.items() if np.shape(a) == (2,) and np.allclose(a, 0.1))
    store[moment] = np.array([0.1, 0.2], "float32")
    before: list[Any] = [np.array(keras.ops.convert_to_numpy(v)) for v in optimizer.variables]
    with pytest.raises(ck.CheckpointError, match="the file is damaged: m of w"):
        optimizer.load_own_variables(store)
    after = [keras.ops.convert_to_numpy(v) for v in optimizer.variables]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


def test_a_description_that_cannot_be_read() -> None:
    store = Store()
    optimizer = ck.SGD()
    optimizer.build([keras.Variable([1.0], name="w")])
    optimizer.save_own_variables(store)
    store["metadata"] = store["metadata"][:-3]
    with pytest.raises(ck.CheckpointError, match="its description cannot be read"):
        optimizer.load_own_variables(store)

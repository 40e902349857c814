"""What docs/stability.md promises: names and options stay, and files of earlier versions can be read."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from capibara_keras.resuming import archive
from tests.data.checkpoints.write import model, train
from tests.subprocess_runner import ROOT

DATA = Path(__file__).parent / "data"
CHECKPOINTS = DATA / "checkpoints"
STABLE = json.loads((DATA / "stable.json").read_text())
VERSIONS = sorted(path.name.removesuffix(".weights.h5") for path in CHECKPOINTS.glob("*.weights.h5"))


def rows() -> dict[str, list[str]]:
    """Options and their aliases, of the page that is generated from the code (a test of its own keeps it fresh)."""
    cells = re.findall(r"^\| (`\w+`) \| (.*?) \|", (ROOT / "docs" / "options.md").read_text(), flags=re.MULTILINE)
    return {name.strip("`"): re.findall(r"`(\w+)`", aliases) for name, aliases in cells}


@pytest.mark.parametrize("module", STABLE["names"])
def test_public_names_stay(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in STABLE["names"][module] if name not in loaded.__all__ or not hasattr(loaded, name)] == []


def test_options_and_their_aliases_stay() -> None:
    now = rows()
    assert len(STABLE["options"]) > 50
    gone = [name for name, aliases in STABLE["options"].items() if name not in now or set(aliases) - set(now[name])]
    assert gone == []


def test_checkpoints_of_earlier_versions_are_there() -> None:
    assert VERSIONS == ["0.1.0", "first", "groups"]


@pytest.mark.parametrize("version", VERSIONS)
def test_checkpoints_of_earlier_versions_go_on(version: str) -> None:
    """Moments, averages, counter and the open window: two batches later, the weights are those of that version."""
    expected = json.loads((CHECKPOINTS / f"{version}.json").read_text())
    one = model()
    one.load_weights(CHECKPOINTS / f"{version}.weights.h5")
    assert [w.tolist() for w in one.get_weights()] == expected["then"]
    assert (int(one.optimizer.iterations.numpy()), one.optimizer.pending_micro_batches) == (1, 1)
    for batch in (3, 4):
        train(one, batch)
    for found, wanted in zip(one.get_weights(), expected["later"], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


def test_a_saved_run_of_an_earlier_version() -> None:
    """The file that `Resume` writes, format 1."""
    description, arrays = archive.read(CHECKPOINTS / "format1.run")
    assert description == {"position": {"epoch": 1, "batch": 2}}
    assert arrays["a"].tolist() == [[1.0, 2.0]] and arrays["b"].tolist() == [1.5]
    assert [a.dtype.name for a in arrays.values()] == ["float32", "bfloat16"]

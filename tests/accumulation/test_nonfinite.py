"""Micro-batches that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests.accumulation.common import scalar, sgd
from tests.models import values, variables


def broken(count: int, seed: int = 0) -> list[tuple[list[np.ndarray], bool]]:
    """Gradients of two variables; a quarter has a NaN or Inf."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        grads = [rng.normal(size=s).astype("float32") for s in ((3, 2), (2,))]
        bad = bool(rng.random() < 0.25)
        if bad:
            grads[0][1, 1] = rng.choice([np.nan, np.inf, -np.inf])
        result.append((grads, bad))
    return result


def run(optimizer: Any, micro_batches: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Weights, and the optimizer's state without its reports."""
    ws = variables((3, 2), (2,))
    for grads in micro_batches:
        optimizer.apply([ops.convert_to_tensor(g) for g in grads], ws)
    rows = [s for row in optimizer._state.slots + optimizer._state.averages for s in row]
    return values([*ws, *rows, optimizer.iterations])


POLICIES: dict[str, dict[str, Any]] = {
    "adam": {"algorithm": "adam", "use_ema": True},
    "sgd": {"algorithm": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "divided": {"algorithm": "sgd", "loss_divided": True},
    "adaptive": {"algorithm": "sgd", "clip_method": "adaptive", "adaptive_clipping": {"history_length": 4}},
}


@pytest.mark.parametrize("jit_compile", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", POLICIES)
def test_dropping_micro_batches_equals_the_run_without_them(rule: str, jit_compile: bool) -> None:
    """Bit for bit: a window is full when three good ones are in."""
    options = POLICIES[rule] | {"gradient_accumulation_steps": 3, "jit_compile": jit_compile}
    micro = broken(24)
    one, two = (
        ck.Optimizer(learning_rate=0.1, nonfinite="drop_micro_batch", **options),
        ck.Optimizer(learning_rate=0.1, **options),
    )
    found = run(one, [g for g, _ in micro])
    expected = run(two, [g for g, bad in micro if not bad])
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()
    dropped = sum(bad for _, bad in micro)
    assert one.counters()["dropped"] == dropped > 3
    assert one.counters()["skipped"] == 0
    assert one.counters()["micro_steps"] == 24


@pytest.mark.parametrize("rule", POLICIES)
def test_skipping_equals_the_run_without_these_windows(rule: str) -> None:
    """Bit for bit: one bad micro-batch costs its window, and nothing else."""
    options = POLICIES[rule] | {"gradient_accumulation_steps": 3, "jit_compile": False}
    micro = broken(24, seed=1)
    whole = [micro[i : i + 3] for i in range(0, 24, 3)]
    good = [window for window in whole if not any(bad for _, bad in window)]
    assert 2 <= len(good) <= 6
    one, two = ck.Optimizer(learning_rate=0.1, **options), ck.Optimizer(learning_rate=0.1, **options)
    found = run(one, [g for g, _ in micro])
    expected = run(two, [g for window in good for g, _ in window])
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()
    assert one.counters()["skipped"] == 8 - len(good)


def test_a_window_of_dropped_micro_batches_only_makes_no_update() -> None:
    optimizer = sgd(2, nonfinite="drop_micro_batch")
    assert scalar(optimizer, np.nan, np.inf, np.nan, flush=True) == 0.0
    assert int(optimizer.iterations) == 0
    assert optimizer.counters()["dropped"] == 3


def test_dropping_with_weights() -> None:
    """The weight of a dropped micro-batch does not count: (1·2 + 3·6) / 4."""
    optimizer, w = sgd(2, nonfinite="drop_micro_batch"), keras.Variable([0.0])
    for weight, g in ((1.0, 2.0), (9.0, np.nan), (3.0, 6.0)):
        optimizer.weigh(weight)
        optimizer.apply([ops.array([g], "float32")], [w])
    assert w.numpy().item() == pytest.approx(-5.0)

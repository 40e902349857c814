"""Batches that no training survives by luck: NaN, infinity, 1e30, zeros, none at all."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.reliability.common import MEASURED, Ledger, network, regression

__all__ = ["run"]

PIECE = 200
"""Batches between two entries in the ledger."""

BATCH = 8
"""Rows."""


def configurations() -> dict[str, Callable[[], Any]]:
    """Optimizers that have a clip limit, or a step that does not grow with the gradient."""
    import capibara_keras as ck

    return {
        "adam": lambda: ck.Adam(1e-3, global_clipnorm=1.0),
        "adamw, windows of 3": lambda: ck.AdamW(1e-3, gradient_accumulation_steps=3, use_ema=True),
        "adamw, windows of 3, bad micro-batches dropped": lambda: ck.AdamW(
            1e-3, gradient_accumulation_steps=3, nonfinite="drop_micro_batch"
        ),
        "sgd": lambda: ck.SGD(1e-3, momentum=0.9, clipvalue=0.5),
        "lion": lambda: ck.Lion(1e-4, clip_method="adaptive"),
        "adamw, 8 bits": lambda: ck.AdamW(1e-3, state_precision="8bit"),
        "adafactor, window of 2": lambda: ck.Optimizer("adafactor", learning_rate=1e-3, gradient_accumulation_steps=2),
        "lamb, spikes skipped": lambda: ck.Optimizer("lamb", learning_rate=1e-3, skip_spikes=3.0),
        "muon": lambda: ck.Optimizer("muon", learning_rate=1e-3),
        "soap, clipped units": lambda: ck.Optimizer("soap", learning_rate=1e-3, clip_method="agc", clip_value=0.1),
        "ademamix, cautious, lookahead": lambda: ck.Optimizer(
            "ademamix", learning_rate=1e-3, cautious=True, lookahead_steps=3, global_clipnorm=1.0
        ),
        "schedule-free": lambda: ck.ScheduleFreeAdamW(1e-3, global_clipnorm=1.0),
    }


def poisoned(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A batch."""
    x, y = regression(64)
    rows = rng.integers(0, len(x), BATCH)
    x, y = x[rows].copy(), y[rows].copy()
    bad = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "1e30": 1e30}
    if kind == "zeros":
        return x * 0, y * 0
    if kind == "empty":
        return x[:0], y[:0]
    target = x if rng.integers(2) else y
    target[rng.random(target.shape) < rng.choice([0.05, 1.0])] = bad[kind]
    target.flat[0] = bad[kind]
    return x, y


KINDS = ("nan", "inf", "-inf", "1e30", "zeros", "empty")


def run(ledger: Ledger, count: int, seconds: float = math.inf) -> None:
    """Until there are `count` in the ledger, or for so many seconds. In turn: a bad batch, and now and then a good one.

    Harm is an entry of the state that is not finite (after a good batch or more: the open window of micro-batches that
    is to be skipped holds a NaN); a weight that moved by more than a hundred steps of
    the size that a good batch makes; or a training that does not go on with the good batch.
    """
    import keras

    end, rng = time.monotonic() + seconds, ledger.random("poison")
    x, y = regression(BATCH)
    while ledger.count("poison") < count and time.monotonic() < end:
        for name, make in configurations().items():
            if time.monotonic() > end:
                break
            model, failures, done = network(make()), [], 0
            model.train_on_batch(x, y)
            for _ in range(PIECE):
                kind = str(rng.choice(KINDS))
                before = model.get_weights()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model.train_on_batch(*poisoned(kind, rng))
                done += 1
                moved = max(float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), before, strict=True))
                if not moved <= 0.1:
                    failures.append(f"{name}, {kind}: a weight moved by {moved}")
                    break
            before = model.get_weights()
            for _ in range(6):
                model.train_on_batch(x, y)
            if all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True)):
                failures.append(f"{name}: the training does not go on")
            state = {v.name: v for v in model.optimizer.variables if v.name not in MEASURED and "float" in v.dtype}
            bad = [v for v in state if not np.isfinite(keras.ops.convert_to_numpy(state[v])).all()]
            if bad:
                failures.append(f"{name}: the state is not finite: {bad}")
            ledger.add("poison", done, failures)

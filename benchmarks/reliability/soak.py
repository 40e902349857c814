"""A long run with flat memory: fit, monitor, change options, save and load as `Resume` does, over and over.

Not with what grows with Keras' own optimizers too: a pair of `save_weights` and `load_weights` keeps 0.15 MiB, and each
call of `fit` with arrays 0.02 MiB, of the pipeline that Keras makes for them. So there is one `tf.data.Dataset`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.common import Ledger, network, regression

__all__ = ["run"]

PAUSE = 1.0
"""Seconds of sleep after each cycle: the machine is shared."""

EPOCHS = 20
"""Of each call of `fit`."""

WARMUP = 0.2
"""Share of the run in which allocators may still grow."""

FLAT = 5.0
"""Growth after the warmup that counts as flat, in MiB."""


def run(ledger: Ledger, seconds: float) -> None:
    """Cycle for so long. A growth of the memory beyond `FLAT` after the warmup is a failure."""
    import tensorflow as tf

    import capibara_keras as ck
    from capibara_keras.callbacks import run_state
    from capibara_keras.resuming import archive

    data = tf.data.Dataset.from_tensor_slices(regression(256)).batch(16)
    optimizer = ck.AdamW(1e-3, weight_decay=0.01, gradient_accumulation_steps=2, clip_method="adaptive")
    model = network(optimizer)
    monitor = ck.HealthMonitor(print_fn=lambda text: None)
    samples: list[tuple[float, float]] = []
    start, cycles, written = time.monotonic(), 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        while (elapsed := time.monotonic() - start) < seconds:
            model.fit(data, epochs=EPOCHS, verbose=0, callbacks=[monitor])
            optimizer.beta_2 = 0.99 + 0.005 * (cycles % 2)
            optimizer.get_optimization_metrics()
            monitor.alerts.clear()
            archive.save(Path(folder), *run_state.take(model, [monitor]))
            run_state.put(model, archive.load(Path(folder))[1])
            cycles += 1
            samples.append((elapsed, memory()))
            if elapsed - written > 60:
                written = elapsed
                ledger.put("soak", report(samples, cycles, optimizer), final=False)
            time.sleep(PAUSE)
    ledger.put("soak", report(samples, cycles, optimizer))


def report(samples: list[tuple[float, float]], cycles: int, optimizer: Any) -> dict[str, Any]:
    """What grew after the warmup, from the medians of the first and the last fifth of what follows."""
    times, sizes = np.array(samples).T
    after = sizes[times >= WARMUP * times[-1]]
    fifth = max(1, len(after) // 5)
    growth = float(np.median(after[-fifth:]) - np.median(after[:fifth]))
    return {
        "count": cycles,
        "failures": [] if growth <= FLAT else [f"memory grew by {growth:.1f} MiB"],
        "seconds": round(float(times[-1])),
        "updates": int(optimizer.iterations.numpy()),
        "memory_mib": round(float(np.median(after[-fifth:])), 1),
        "growth_mib": round(growth, 2),
    }


def memory() -> float:
    """Memory of this process in MiB (Linux) that is in no file: pages of libraries come and go as the kernel likes, and
    could hide a growth."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024

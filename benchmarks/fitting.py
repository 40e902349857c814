"""What an optimizer costs where it is used: in `fit`, in memory, on two replicas. Each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import Ratio
from benchmarks.report import Line, Row, row
from benchmarks.shapes import SHAPES

FIT = [
    Line("tiny MLP: clipping, statistics, monitor / Keras Adam", "mlp: ours, monitored", "mlp: keras adam", 1.10),
    Line("tiny MLP: ours / Keras Adam", "mlp: ours", "mlp: keras adam"),
    Line("transformer: statistics / without", "lm: ours, statistics", "lm: ours", 1.02),
    Line("transformer: monitor every 10 batches / statistics", "lm: ours, monitored", "lm: ours, statistics", 1.01),
    Line("transformer: ours / Keras Adam", "lm: ours", "lm: keras adam"),
]


def fit(rounds: int) -> tuple[dict[str, Any], list[Row]]:
    """Seconds of `fit`, per round."""
    times = _process("fit", rounds)
    return times, [row(line.what, line, times) for line in FIT]


def memory(rounds: int) -> tuple[dict[str, Any], list[Row]]:
    """Bytes of state of an optimizer for 42 million parameters, beside Keras' AdamW."""
    found = _process("memory", rounds)
    rows = []
    for name, size in found.items():
        share = size / found["keras adamw"]
        rows.append(Row(f"state bytes: {name} / Keras AdamW", Ratio(share, share, share), None, name, "keras adamw"))
    return found, rows


def replicas(rounds: int) -> tuple[dict[str, Any], list[Row]]:
    """A step on two replicas."""
    times = _process("replicas", rounds)
    line = Line("two replicas, 10M: ours / Keras", "ours", "keras")
    return times, [row(line.what, line, times)]


def _process(part: str, rounds: int) -> Any:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    print(f"{part} …", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fitting", part, str(rounds)],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


# In the process ---------------------------------------------------------------------------------------------


def _interleaved(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def _fit(rounds: int) -> dict[str, list[float]]:
    import keras
    import numpy as np

    import capibara_keras as ck

    rng = np.random.default_rng(0)

    def mlp(optimizer: Any, callbacks: Callable[[], list[Any]]) -> Callable[[], Any]:
        layers = [keras.Input((64,)), *[keras.layers.Dense(64, "relu") for _ in range(3)], keras.layers.Dense(10)]
        model = keras.Sequential(layers)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = rng.normal(size=(6400, 64)).astype("float32"), rng.integers(0, 10, 6400)
        return lambda: model.fit(x, y, batch_size=32, epochs=1, verbose=0, shuffle=False, callbacks=callbacks())

    def transformer(optimizer: Any, callbacks: Callable[[], list[Any]]) -> Callable[[], Any]:
        tokens = keras.Input((64,), dtype="int32")
        h = keras.layers.Embedding(2000, 512)(tokens)
        for _ in range(3):
            a = keras.layers.LayerNormalization()(h)
            h = h + keras.layers.MultiHeadAttention(8, 64)(a, a, use_causal_mask=True)
            b = keras.layers.Dense(2048, "gelu")(keras.layers.LayerNormalization()(h))
            h = h + keras.layers.Dense(512)(b)
        model = keras.Model(tokens, keras.layers.Dense(2000)(h))
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x = rng.integers(0, 2000, (80, 64))
        return lambda: model.fit(x, x, batch_size=8, epochs=1, verbose=0, shuffle=False, callbacks=callbacks())

    def nothing() -> list[Any]:
        return []

    def monitor() -> list[Any]:
        return [ck.HealthMonitor(every=10)]

    runs = {}
    for name, build in (("mlp", mlp), ("lm", transformer)):
        runs[f"{name}: keras adam"] = build(keras.optimizers.Adam(), nothing)
        runs[f"{name}: ours"] = build(ck.Adam(global_clipnorm=1.0), nothing)
        runs[f"{name}: ours, statistics"] = build(ck.Adam(global_clipnorm=1.0, statistics_every=10), nothing)
        runs[f"{name}: ours, monitored"] = build(ck.Adam(global_clipnorm=1.0, statistics_every=10), monitor)
    return _interleaved(runs, rounds)


def _memory(rounds: int) -> dict[str, int]:
    import keras

    import capibara_keras as ck

    def size(optimizer: Any) -> int:
        variables = [keras.Variable(keras.ops.zeros(shape)) for shape in SHAPES["42M"]]
        optimizer.build(variables)
        return sum(keras.ops.convert_to_numpy(v).nbytes for v in optimizer.variables)

    return {"keras adamw": size(keras.optimizers.AdamW()), "ours adamw": size(ck.AdamW(global_clipnorm=1.0))}


def _replicas(rounds: int) -> dict[str, list[float]]:
    import tensorflow as tf

    device = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras

    import capibara_keras as ck
    from benchmarks.contenders import NOISE, SCALE, arrays

    shapes = SHAPES["10M"]
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    grads = [tf.constant(g) for g in arrays(shapes, NOISE)]
    runs: dict[str, Callable[[], Any]] = {}
    for name, kind in {"keras": keras.optimizers.AdamW, "ours": ck.AdamW}.items():
        with strategy.scope():
            optimizer, variables = kind(global_clipnorm=1.0), [keras.Variable(w) for w in arrays(shapes, SCALE)]
            optimizer.build(variables)

        def replica(optimizer: Any = optimizer, variables: Any = variables) -> None:
            optimizer.apply(grads, variables)

        runs[name] = tf.function(lambda replica=replica: strategy.run(replica), autograph=False)
    return _interleaved(runs, rounds)


if __name__ == "__main__":
    parts = {"fit": _fit, "memory": _memory, "replicas": _replicas}
    print(json.dumps(parts[sys.argv[1]](int(sys.argv[2]))))

"""One strategy in one process: every case trained without a strategy and with it, on the same global batches.

Run through `tests.subprocess_runner` with as many devices as replicas; `sys.argv`: replicas, then names of `CASES`.
Prints {case: {…}} as JSON.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import capibara_keras as ck

REPLICAS, NAMES = int(sys.argv[1]), sys.argv[2:]
STRATEGY = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(REPLICAS)])
BATCH, STEPS = 8, 24
RNG = np.random.default_rng(0)
X = RNG.normal(size=(BATCH * STEPS, 8)).astype("float32")
Y = (3 * X[:, :1] + RNG.normal(size=(BATCH * STEPS, 1))).astype("float32")

ADAPTIVE = {"clip_method": "adaptive", "adaptive_clipping": {"percentile": 30, "history_length": 10}}
CASES: dict[str, Callable[[], Any]] = {
    "plain": lambda: ck.Adam(1e-2),
    "global norm": lambda: ck.Adam(1e-2, global_clipnorm=0.5),
    "value": lambda: ck.SGD(1e-2, clipvalue=0.05),
    "per parameter": lambda: ck.SGD(1e-2, momentum=0.9, clipnorm=0.5),
    "agc": lambda: ck.SGD(1e-2, clip_method="agc", clip_coeff=0.05, clip_output_layer=True),
    "percentile": lambda: ck.Adam(1e-2, **ADAPTIVE),
    "accumulate": lambda: ck.Adam(1e-2, gradient_accumulation_steps=3),
    "accumulate, clip": lambda: ck.Adam(1e-2, gradient_accumulation_steps=3, global_clipnorm=0.1),
    "accumulate, clip micro-batches": lambda: ck.Adam(
        1e-2, gradient_accumulation_steps=3, global_clipnorm=0.5, defer_clip_until_accumulation=False
    ),
    "accumulate, drop": lambda: ck.Adam(1e-2, gradient_accumulation_steps=3, nonfinite="drop_micro_batch"),
    "decay": lambda: ck.AdamW(1e-2, weight_decay=0.1),
    "average": lambda: ck.Adam(1e-2, use_ema=True, ema_momentum=0.9),
    "average, overwrite": lambda: ck.Adam(1e-2, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4),
    "layer-wise": lambda: ck.AdamW(1e-2, layer_wise_lr_decay=0.5, differential_learning_rates={"head": 2.0}),
    "everything": lambda: ck.AdamW(
        ck.schedules.CosineWithWarmup(1e-2, 8, 2),
        weight_decay=0.1,
        gradient_accumulation_steps=3,
        use_ema=True,
        ema_momentum=0.9,
        ema_overwrite_frequency=2,
        layer_wise_lr_decay=0.5,
        skip_spikes=20.0,
        **ADAPTIVE,
    ),
    "two points": lambda: ck.ScheduleFreeAdamW(1e-2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(ck.Adam(1e-2, global_clipnorm=0.5)),
    "Keras global norm": lambda: keras.optimizers.SGD(1e-1, global_clipnorm=0.5),
}


def network() -> keras.Model:
    """Two layers, the same weights each time."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(16, "tanh", name="body"), keras.layers.Dense(1, name="head")]
    return keras.Sequential(layers)


def by_fit(make: Callable[[], Any], strategy: Any, x: np.ndarray) -> tuple[keras.Model, Any]:
    """Trained by `fit`."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = network()
        model.compile(make(), "mse")
    model.fit(x, Y, batch_size=BATCH, shuffle=False, verbose=0)
    return model, model.optimizer


def by_two_fits(make: Callable[[], Any], strategy: Any, x: np.ndarray) -> tuple[keras.Model, Any]:
    """Trained by two calls of `fit`, half of the data each."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = network()
        model.compile(make(), "mse")
    for part in np.split(np.arange(len(x)), 2):
        model.fit(x[part], Y[part], batch_size=BATCH, shuffle=False, verbose=0)
    return model, model.optimizer


def by_loop(make: Callable[[], Any], strategy: Any, x: np.ndarray) -> tuple[keras.Model, Any]:
    """Trained by a loop of one's own; each replica has its share of every batch. Built while tracing."""
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        model, optimizer = network(), make()

    def one(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2) / replicas
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    @tf.function
    def step(x: Any, y: Any) -> None:
        strategy.run(one, args=(x, y))

    share = BATCH // replicas
    for start in range(0, len(x), BATCH):

        def part(context: Any, data: np.ndarray, start: int = start) -> Any:
            first = start + context.replica_id_in_sync_group * share
            return tf.constant(data[first : first + share])

        values = [
            strategy.experimental_distribute_values_from_function(lambda c, data=data: part(c, data)) for data in (x, Y)
        ]
        step(*values)
    return model, optimizer


def replicas_of(variable: Any) -> list[np.ndarray]:
    """The value that each replica holds."""
    return [v.numpy() for v in STRATEGY.experimental_local_results(variable.value)]


def compare(make: Callable[[], Any], train: Callable[..., Any], x: np.ndarray) -> dict[str, Any]:
    """Largest differences between one device and the strategy."""
    (alone, first), (together, second) = train(make, None, x), train(make, STRATEGY, x)
    weights = [(a.numpy(), b.numpy()) for a, b in zip(alone.weights, together.weights, strict=True)]
    state = [
        float(np.max(np.abs(a.numpy() - b.numpy()) / (5e-6 + 1e-5 * np.abs(a.numpy())), initial=0.0))
        for a, b in zip(first.variables, second.variables, strict=True)
        if a.name.endswith(("_m", "_v", "_momentum", "_average"))
    ]
    spread = [
        float(np.max(np.abs(values[0] - other), initial=0.0))
        for variable in [*together.weights, *(v for v in second.variables if not v.name.endswith("accumulator"))]
        for values in [replicas_of(variable)]
        for other in values[1:]
        if np.issubdtype(other.dtype, np.floating) and np.isfinite(other).all()
    ]
    inner = getattr(second, "inner_optimizer", second)
    return {
        "weights": max(float(np.abs(a - b).max()) for a, b in weights),
        "state": max(state, default=0.0),
        "replicas": max(spread, default=0.0),
        "finite": all(bool(np.isfinite(b).all()) for _, b in weights),
        "updates": [int(first.iterations.numpy()), int(second.iterations.numpy())],
        "skipped": [getattr(o, "inner_optimizer", o).counters()["skipped"] for o in (first, second)]
        if hasattr(inner, "counters")
        else None,
        "dropped": inner.counters()["dropped"] if hasattr(inner, "counters") else None,
    }


def main() -> None:
    """Run the cases: a name alone is trained by `fit`; "twice:", "loop:", "nan:" before it change how and on what."""
    results = {}
    for name in NAMES:
        *how, case = name.split(":")
        x = X.copy()
        if "nan" in how:
            x[BATCH * 7 + BATCH - 1, 0] = np.nan  # the last sample of a batch: on the last replica
        results[name] = compare(CASES[case], by_loop if "loop" in how else by_two_fits if "twice" in how else by_fit, x)
    print(json.dumps(results))


main()

"""Eight forced host devices on the JAX backend, against one. Prints JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import capibara_keras as ck

RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 8)).astype("float32")
Y = (3 * X[:, :1] + RNG.normal(size=(128, 1))).astype("float32")
DEVICES = keras.distribution.list_devices()

CASES: dict[str, Callable[[], Any]] = {
    "clip, decay": lambda: ck.AdamW(1e-2, weight_decay=0.1, global_clipnorm=0.5),
    "accumulate, average": lambda: ck.Adam(1e-2, gradient_accumulation_steps=2, global_clipnorm=0.1, use_ema=True),
    "percentile per parameter": lambda: ck.Adam(1e-2, clip_method="adaptive", per_parameter_clipping=True),
}


def data_parallel() -> Any:
    """Batches split over all devices."""
    return keras.distribution.DataParallel(devices=DEVICES)


def model_parallel() -> Any:
    """Two by four: batches split over two, the hidden layer over four."""
    mesh = keras.distribution.DeviceMesh((2, 4), ["batch", "model"], devices=DEVICES)
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*hidden.*kernel"] = (None, "model")
    layouts[".*hidden.*bias"] = ("model",)
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


def train(make: Callable[[], Any], distribution: Any = None) -> tuple[keras.Model, Any, list[np.ndarray]]:
    """`fit` under a distribution, from the same weights."""
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(16, "tanh", name="hidden"), keras.layers.Dense(8)]
    model = keras.Sequential(layers)
    model.compile(make(), "mse")
    model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    keras.distribution.set_distribution(None)
    return model, model.optimizer, [np.asarray(w.value) for w in model.weights]


results: dict[str, Any] = {"weights": {}}
for name, make in CASES.items():
    _, _, alone = train(make)
    for how in (data_parallel, model_parallel):
        model, optimizer, together = train(make, how())
        worst = max(float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True))
        results["weights"][f"{name}, {how.__name__}"] = worst
    slots = {v.path: v for v in optimizer.variables}
    results["model parallel layouts agree"] = all(
        state.value.sharding.spec == v.value.sharding.spec
        for v in model.trainable_variables
        for path, state in slots.items()
        if path.endswith(("_m", "_v")) and v.path.replace("/", "_") in path and state.shape == v.shape
    )
    results["hidden kernel is split"] = "model" in str(model.trainable_variables[0].value.sharding.spec)
_, _, alone = train(lambda: ck.AdamW(1e-2))
model, optimizer, together = train(lambda: ck.AdamW(1e-2, shard_state=True), data_parallel())
results["weights"]["sharded state"] = max(float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True))
results["zero"] = {
    v.path: [v.value.nbytes, v.value.addressable_shards[0].data.nbytes]
    for v in optimizer.variables
    if v.path.endswith(("_m", "_v"))
}
results["weights are replicated"] = all(w.value.sharding.is_fully_replicated for w in model.weights)
print(json.dumps(results))

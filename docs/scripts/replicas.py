"""Prints the measurements of docs/distribution.md, Keras beside this package: `python docs/scripts/replicas.py`.

Two CPU devices stand for two replicas. Takes about two minutes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import capibara_keras as ck

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
STRATEGY = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
PACKAGES = (keras.optimizers, ck)

STEPS: dict[str, tuple[Callable[[Any], Any], tuple[float, float]]] = {
    "gradients 10 and 10, `global_clipnorm=1`": (lambda p: p.SGD(1.0, global_clipnorm=1.0), (10.0, 10.0)),
    "gradients 3 and -1, `global_clipnorm=1`": (lambda p: p.SGD(1.0, global_clipnorm=1.0), (3.0, -1.0)),
    "gradients 1 and NaN": (lambda p: p.SGD(1.0), (1.0, float("nan"))),
    "gradients 1 and inf, in a `LossScaleOptimizer`": (
        lambda p: keras.optimizers.LossScaleOptimizer(p.SGD(1.0)),
        (1.0, float("inf")),
    ),
}
"""Case -> optimizer, and the gradient of each replica; the weight is 0 before."""

FITS: dict[str, Callable[[Any], Any]] = {
    "Adam": lambda p: p.Adam(1e-2),
    "AdamW": lambda p: p.AdamW(1e-2, weight_decay=0.1),
    "EMA": lambda p: p.Adam(1e-2, use_ema=True),
    "`global_clipnorm`": lambda p: p.SGD(1e-1, global_clipnorm=0.5),
    "`clipnorm`": lambda p: p.SGD(1e-1, clipnorm=0.5),
    "`clipvalue`": lambda p: p.SGD(1e-1, clipvalue=0.05),
    "accumulation of 3": lambda p: p.Adam(1e-2, gradient_accumulation_steps=3),
    "`ema_overwrite_frequency`": lambda p: p.Adam(1e-2, use_ema=True, ema_overwrite_frequency=4),
}


def step(optimizer_of: Callable[[Any], Any], package: Any, gradients: tuple[float, float]) -> float:
    """The weight after one update."""
    with STRATEGY.scope():
        w, optimizer = keras.Variable(np.zeros(1, "float32")), optimizer_of(package)
        optimizer.build([w])

    def replica() -> None:
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply([tf.reshape(tf.gather(tf.constant(gradients), number), [1])], [w])

    tf.function(lambda: STRATEGY.run(replica))()
    return w.numpy().item()


def trained(optimizer: Callable[[], Any], strategy: Any = None) -> np.ndarray:
    """The weights after 24 batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(192, 8)).astype("float32")
    y = (3 * x[:, :1] + rng.normal(size=(192, 1))).astype("float32")
    with strategy.scope() if strategy else contextlib.nullcontext():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
        model.compile(optimizer(), "mse")
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    return np.concatenate([w.ravel() for w in model.get_weights()])


def difference(optimizer_of: Callable[[Any], Any], package: Any) -> str:
    """Between one device and two replicas: the largest difference of the weights."""
    try:
        alone, together = (trained(lambda: optimizer_of(package), strategy) for strategy in (None, STRATEGY))
    except RuntimeError:
        return "RuntimeError"
    return f"{np.abs(alone - together).max():.1e}"


if __name__ == "__main__":
    print("| one update on two replicas | Keras | here |\n| --- | --- | --- |")
    for title, (make, gradients) in STEPS.items():
        print(f"| {title} | " + " | ".join(f"{step(make, package, gradients):g}" for package in PACKAGES) + " |")
    print("\n| one device against two replicas | Keras | here |\n| --- | --- | --- |")
    for title, make in FITS.items():
        print(f"| {title} | " + " | ".join(difference(make, package) for package in PACKAGES) + " |", flush=True)

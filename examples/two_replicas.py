"""Two replicas: MirroredStrategy, with clipping and accumulation that act once per update.

    python examples/two_replicas.py

Without two GPUs, two halves of the CPU stand in. The weights equal those of one device with the same global batch.
"""

from __future__ import annotations

import contextlib

import tensorflow as tf

if len(tf.config.list_physical_devices("GPU")) < 2:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras
import numpy as np

import capibara_keras as ck


def trained(strategy: tf.distribute.Strategy | None) -> tuple[np.ndarray, int]:
    """The weights after an epoch, and the number of updates."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        optimizer = ck.AdamW(1e-2, global_clipnorm=0.5, gradient_accumulation_steps=3)
        model.compile(optimizer, "mse")
    model.fit(x, x.sum(1), batch_size=16, shuffle=False, verbose=0, callbacks=[ck.Attach()])
    return np.concatenate([w.ravel() for w in model.get_weights()]), int(optimizer.iterations.numpy())


def main() -> None:
    """One device, then two."""
    strategy = tf.distribute.MirroredStrategy()
    (one, updates), (two, _) = trained(None), trained(strategy)
    difference = np.abs(one - two).max()
    print(f"{strategy.num_replicas_in_sync} replicas, {updates} updates, largest difference: {difference:.0e}")


if __name__ == "__main__":
    main()

"""JAX, data parallel: batches are split over the devices, and with `shard_state` the optimizer's state too.

    python examples/jax_data_parallel.py

Without two accelerators, two parts of the CPU stand in.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

import keras
import numpy as np

import capibara_keras as ck


def main() -> None:
    """Train, and show what each device holds."""
    keras.utils.set_random_seed(0)
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
    optimizer = ck.AdamW(1e-2, global_clipnorm=1.0, shard_state=True)
    model.compile(optimizer, "mse")
    losses = model.fit(x, x.sum(1), batch_size=32, epochs=5, verbose=0, callbacks=[ck.Attach()]).history["loss"]
    print(f"{len(keras.distribution.list_devices())} devices, loss {losses[0]:.2f} -> {losses[-1]:.2f}")
    for v in optimizer.variables:
        if v.path.endswith("kernel_m"):
            print(f"{v.path}: {v.shape}, on each device {v.value.addressable_shards[0].data.shape}")


if __name__ == "__main__":
    main()

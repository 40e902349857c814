"""`python -m benchmarks.health.overhead`: what `HealthMonitor` costs, per step of a transformer of 10 million.

Fits with and without it alternate, so that what else the machine does meets both; a round's ratio is of two fits that
follow each other. Every step counts, those that measure and those that read as well.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from keras import layers

import capibara_keras as ck


def transformer(width: int = 320, blocks: int = 8, symbols: int = 256, length: int = 64) -> keras.Model:
    """A language model; its defaults have 10.0 million weights."""
    inputs = keras.Input((length,), dtype="int32")
    x = layers.Embedding(symbols, width)(inputs) + layers.Embedding(length, width)(keras.ops.arange(length))
    for _ in range(blocks):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(8, width // 8)(h, h, use_causal_mask=True)
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, "gelu")(h))
    return keras.Model(inputs, layers.Dense(symbols)(layers.LayerNormalization()(x)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    x = np.random.default_rng(0).integers(256, size=(options.batch * options.steps, 65)).astype("int32")
    models = {}
    for name in ("plain", "monitored"):
        model = models[name] = transformer()
        model.compile(ck.AdamW(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    print(f"{models['plain'].count_params():,} weights")
    monitor = ck.HealthMonitor()
    seconds: dict[str, list[float]] = {"plain": [], "monitored": []}
    for number in range(options.rounds + 1):  # the first traces
        for name, model in models.items():
            start = time.perf_counter()
            callbacks = [monitor] if name == "monitored" else []
            model.fit(x[:, :-1], x[:, 1:], batch_size=options.batch, verbose=0, callbacks=callbacks)
            if number:
                seconds[name].append((time.perf_counter() - start) / options.steps)
    for name, part in seconds.items():
        print(f"{name:10} median {1e3 * np.median(part):.2f} ms a step, {len(part)} rounds of {options.steps} steps")
    ratios = np.array(seconds["monitored"]) / np.array(seconds["plain"])
    low, middle, high = 100 * (np.percentile(ratios, [25, 50, 75]) - 1)
    print(f"overhead {middle:.2f} % (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()

"""Writes the checkpoint of a version: `PYTHONPATH=CHECKOUT python tests/data/checkpoints/write.py NAME`.

Three batches of a run with an open window: NAME.weights.h5, and in NAME.json the weights then and two batches later.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

import capibara_keras as ck

HERE = Path(__file__).parent


def model() -> keras.Model:
    """The same weights each time."""
    layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh", name="a"), keras.layers.Dense(1, name="b")]
    one = keras.Sequential(layers, name="m")
    rng = np.random.default_rng(0)
    one.set_weights([0.5 * rng.normal(size=w.shape) for w in one.weights])
    one.compile(
        ck.AdamW(0.05, weight_decay=0.1, amsgrad=True, gradient_accumulation_steps=2, use_ema=True, clipnorm=0.5), "mse"
    )
    one.optimizer.build(one.trainable_variables)
    return one


def train(one: keras.Model, batch: int) -> None:
    """One batch."""
    rng = np.random.default_rng(batch + 1)
    one.train_on_batch(rng.normal(size=(4, 4)).astype("float32"), rng.normal(size=(4, 1)).astype("float32"))


def weights(one: keras.Model) -> list[Any]:
    """As lists."""
    return [w.tolist() for w in one.get_weights()]


def main(name: str) -> None:
    one = model()
    for batch in range(3):
        train(one, batch)
    one.save_weights(HERE / f"{name}.weights.h5")
    then = weights(one)
    for batch in range(3, 5):
        train(one, batch)
    (HERE / f"{name}.json").write_text(json.dumps({"then": then, "later": weights(one)}))


if __name__ == "__main__":
    main(sys.argv[1])

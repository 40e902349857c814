"""Half a window on R replicas, saved; the rest on R' replicas or on one. `sys.argv`: "save" or "resume", replicas,
folder. Prints the weights as JSON after "resume", and of the run that never stopped after "save"."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import capibara_keras as ck

PHASE, REPLICAS, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
BATCH, FIRST = 8, 5  # 5 micro-batches: an update of 3, and 2 of the next window
RNG = np.random.default_rng(0)
X = RNG.normal(size=(11 * BATCH, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def train(model: keras.Model, batches: slice) -> None:
    """`fit` over some batches, without a callback that would use the remainder."""
    rows = slice(batches.start * BATCH, batches.stop * BATCH)
    model.fit(X[rows], Y[rows], batch_size=BATCH, shuffle=False, verbose=0)


strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(REPLICAS)]) if REPLICAS > 1 else None
with strategy.scope() if strategy else contextlib.nullcontext():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    model.compile(ck.Adam(1e-2, gradient_accumulation_steps=3, global_clipnorm=0.5), "mse")
if PHASE == "save":
    train(model, slice(0, FIRST))
    model.save_weights(FOLDER / "window.weights.h5")
else:
    model.optimizer.build(model.trainable_variables)
    model.load_weights(FOLDER / "window.weights.h5")
train(model, slice(FIRST, 11))
print(json.dumps([w.numpy().tolist() for w in model.weights]))

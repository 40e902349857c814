"""One worker of a `MultiWorkerMirroredStrategy`, in a loop of its own. `sys.argv`: index, ports (one for no
strategy), folder, first step, last step, step at which to die (or -1). Writes {case: weights} to the folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

INDEX, PORTS, FOLDER = int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
BEGIN, END, DEATH = map(int, sys.argv[4:7])
if len(PORTS) > 1:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in PORTS]}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": INDEX}})

import keras
import numpy as np
import tensorflow as tf

import capibara_keras as ck

options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=20)
strategy = (
    tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if len(PORTS) > 1
    else tf.distribute.get_strategy()
)
WORKERS, BATCH = len(PORTS), 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
Y = 3 * X[:, :1]

with strategy.scope():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(1)])
    optimizer = ck.Adam(1e-2, gradient_accumulation_steps=3, global_clipnorm=0.1)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer)
if BEGIN:
    model.load_weights(FOLDER / f"saved_{INDEX}.weights.h5")


@tf.function
def step(x: tf.Tensor, y: tf.Tensor) -> None:
    """One micro-batch on each worker."""

    def one(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2) / WORKERS
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    strategy.run(one, args=(x, y))


share = BATCH // WORKERS
for i in range(BEGIN, END):
    if i == DEATH:
        os._exit(9)
    first = (i * BATCH) % len(X) + INDEX * share
    step(tf.constant(X[first : first + share]), tf.constant(Y[first : first + share]))
    if i == 4:  # in mid-window
        model.save_weights(FOLDER / f"saved_{INDEX}.weights.h5")
weights = [v.numpy().tolist() for v in model.trainable_variables]
(FOLDER / f"done_{WORKERS}_{INDEX}.json").write_text(json.dumps(weights))

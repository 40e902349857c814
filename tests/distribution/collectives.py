"""Counts collectives in the traced step of two replicas: at its top level, and in branches. Prints JSON."""

from __future__ import annotations

import json
from collections import Counter

import keras
import tensorflow as tf

import capibara_keras as ck

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
results = {}
for steps in (1, 3):
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(1)])
        optimizer = ck.Adam(1e-2, global_clipnorm=0.5, gradient_accumulation_steps=steps)
        optimizer.build(model.trainable_variables)

    def one(x: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)  # noqa: B023 - used at once
        variables = model.trainable_variables  # noqa: B023
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))  # noqa: B023

    graph = tf.function(lambda x: strategy.run(one, args=(x,))).get_concrete_function(tf.ones((4, 8))).graph
    inner = Counter(
        function.signature.name.split("_")[0]
        for function in graph.as_graph_def().library.function
        for node in function.node_def
        if "CollectiveReduce" in node.op
    )
    results[steps] = {"top": sum("CollectiveReduce" in op.type for op in graph.get_operations()), "inner": inner}
print(json.dumps(results))

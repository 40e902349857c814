"""The XLA program of a step on TensorFlow. Prints JSON."""

from __future__ import annotations

import json

import keras
import numpy as np
import tensorflow as tf

import capibara_keras as ck

kernel, bias = keras.Variable(np.ones((8, 16), "float32")), keras.Variable(np.ones(16, "float32"))
optimizer = ck.AdamW(1e-3, clip_method="adaptive", use_ema=True, skip_spikes=6.0)
optimizer.build([kernel, bias])


@tf.function(jit_compile=True)
def step(g: tf.Tensor, h: tf.Tensor) -> None:
    """An update inside an outer compiled function."""
    optimizer.apply([g, h], [kernel, bias])


@tf.function(jit_compile=True)
def with_python(g: tf.Tensor) -> tf.Tensor:
    """What must not be in a step."""
    return tf.numpy_function(lambda x: x, [g], tf.float32)


text = step.experimental_get_compiler_ir(tf.ones((8, 16)), tf.ones(16))(stage="hlo")
try:
    with_python.experimental_get_compiler_ir(tf.ones(3))(stage="hlo")
    outcome = "compiled"
except ValueError:
    outcome = "refused"
found = {name: text.count(name) for name in ("custom-call", "infeed", "outfeed")}
print(json.dumps({"found": found, "python function": outcome}))

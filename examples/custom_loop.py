"""A loop of one's own: `step` takes gradients and variables, and says what it did.

    python examples/custom_loop.py

Inside a compiled function, `optimizer.apply` does the same without the record, which `optimizer.statistics()` has.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import capibara_keras as ck


def main() -> None:
    """A linear regression, eagerly and then compiled."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5], [3.0]], "float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    optimizer = ck.Optimizer("adam", learning_rate=0.1, gradient_clip_norm=5.0)

    for start in range(0, 64, 16):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x[start : start + 16]) - y[start : start + 16]) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        record = optimizer.step(gradients, model.trainable_variables, return_metrics=True)
        print(f"update {record.update}: loss {float(loss):.2f}, gradient norm {record.gradient_norm:.2f}", end="")
        print(", clipped" if record.clipped else "")

    @tf.function
    def train_step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    for _ in range(100):
        loss = train_step(x, y)
    print(f"after {int(optimizer.iterations)} updates: loss {float(loss):.4f}")


if __name__ == "__main__":
    main()

"""What the tests of accumulation share: weights that can be computed by hand."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import capibara_keras as ck
from tests.models import line, values

RULES: dict[str, dict[str, Any]] = {
    "adam": {"algorithm": "adam", "epsilon": 1e-3},
    "adamw": {"algorithm": "adamw", "epsilon": 1e-3, "weight_decay": 0.1},
    "sgd": {"algorithm": "sgd", "momentum": 0.9, "weight_decay": 0.01},
}
"""With an epsilon at which Adam does not blow up the rounding of gradients that happen to be near 0."""


def scalar(optimizer: Any, *gradients: float, flush: bool = False) -> float:
    """Where a weight that begins at 0 is after `apply` with these gradients."""
    w = keras.Variable([0.0])
    for g in gradients:
        optimizer.apply([ops.array([g], "float32")], [w])
    if flush:
        optimizer.flush()
    return w.numpy().item()


def sgd(k: int | None = None, rate: float = 1.0, **options: Any) -> ck.SGD:
    """A step is the gradient of the window, negated."""
    return ck.SGD(rate, gradient_accumulation_steps=k, **({"jit_compile": False} | options))


def tape_gradients(model: keras.Model, x: Any, y: Any, divisor: float = 1.0) -> list[tf.Tensor]:
    """Of the mean squared error divided by `divisor`."""
    with tf.GradientTape() as tape:
        loss = ops.mean(ops.square(model(x) - y)) / divisor
    return tape.gradient(loss, model.trainable_variables)


Y = np.arange(1.0, 7.0, dtype="float32")[:, None]
"""Gradients 1, 2, … 6 of `line`."""


def fit(
    optimizer: Any, *callbacks: keras.callbacks.Callback, y: np.ndarray = Y, epochs: int = 1, run_eagerly: bool = True
) -> keras.Model:
    """`line` after `fit` with gradients y, one a batch. So few batches take less time than a trace."""
    model = line(optimizer, run_eagerly=run_eagerly)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, of variables without gradient
        model.fit(np.ones_like(y), y, batch_size=1, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def weight(model: keras.Model) -> float:
    return values(model)[0].item()


accumulation_config = {
    "accumulation_steps": 16,
    "normalize_gradients": True,
    "sync_batchnorm": True,
    "scale_loss": True,
    "defer_clip_until_accumulation": True,
}


def normalised(momentum: float = 0.9) -> keras.Model:
    bn = [layers.BatchNormalization(momentum=momentum, name=f"bn{i}") for i in range(2)]
    return keras.Sequential([keras.Input((2,)), bn[0], layers.Dense(2), bn[1], layers.Dense(1)])

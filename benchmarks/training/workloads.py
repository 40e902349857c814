"""The workloads: data, network, loss, length, and the target that a run has to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits

from examples import language_model

__all__ = ["WORKLOADS", "Data", "Workload"]


@dataclass(frozen=True)
class Data:
    """Training and validation arrays."""

    x: np.ndarray
    y: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray


@dataclass(frozen=True)
class Workload:
    """Something to train.

    Args:
        title: for tables and plots.
        data: what it is trained and judged on.
        network: a new model.
        loss: (answer, output) -> a scalar, in `unit`.
        target: validation loss that ends a run. Each was set so that Keras' AdamW at its best rate needs about half
            of the updates.
        steps: updates after which a run has failed.
        every: updates from one evaluation to the next.
    """

    name: str
    title: str
    data: Callable[[], Data]
    network: Callable[[], keras.Model]
    loss: Callable[[Any, Any], Any]
    unit: str
    target: float
    steps: int
    every: int
    batch_size: int

    @property
    def warmup(self) -> int:
        """Updates in which the rate rises to its value."""
        return max(self.steps // 20, 1)

    def batches(self, seed: int) -> np.ndarray:
        """Rows of the training data, (steps, batch_size): epoch after epoch, each in an order of its own."""
        rng, size, n = np.random.default_rng(seed), self.steps * self.batch_size, len(self.data().x)
        order = np.concatenate([rng.permutation(n) for _ in range(-(-size // n))])[:size]
        return order.reshape(self.steps, self.batch_size)


# Losses --------------------------------------------------------------------------------------------------------


def cross_entropy(y: Any, logits: Any) -> Any:
    """Mean, in nats."""
    return ops.mean(ops.sparse_categorical_crossentropy(y, logits, from_logits=True))


def bits(y: Any, logits: Any) -> Any:
    """Mean cross-entropy, in bits."""
    return cross_entropy(y, logits) / np.log(2).astype("float32")


def squared_error(y: Any, output: Any) -> Any:
    """Mean over batch and entries."""
    return ops.mean(ops.square(output - y))


# Data ----------------------------------------------------------------------------------------------------------

TINY = language_model.SIZES["tiny"]


@cache
def text() -> Data:
    """Bytes of Python's standard library; files of the validation text are in no training window."""
    corpus = language_model.read_corpus()
    x, y = language_model.training_batches(corpus.train, 0, 1024, TINY, seed=0)
    return Data(x, y, *language_model.validation_windows(corpus.validation, 48, TINY.context))


@cache
def digits(image: bool = True) -> Data:
    """8 by 8 images of ten digits."""
    found, order = load_digits(), np.random.default_rng(0).permutation(1797)
    x, y = (found.data[order] / 16).astype("float32"), found.target[order].astype("int32")
    x = x.reshape(-1, 8, 8, 1) if image else x
    return Data(x[:1297], y[:1297], x[1297:], y[1297:])


@cache
def images() -> Data:
    """The digits as their own answers."""
    data = digits(image=False)
    return Data(data.x, data.x, data.x_validation, data.x_validation)


@cache
def adding(length: int = 40, size: int = 4608) -> Data:
    """Add the two numbers of a sequence that are marked (Hochreiter & Schmidhuber 1997, Experiment 4)."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.uniform(0, 1, (size, length)), np.zeros((size, length))], -1).astype("float32")
    first, second = rng.integers(0, length // 2, size), rng.integers(length // 2, length, size)
    rows = np.arange(size)
    x[rows, first, 1] = x[rows, second, 1] = 1
    y = (x[..., 0] * x[..., 1]).sum(1, keepdims=True)
    return Data(x[:-512], y[:-512], x[-512:], y[-512:])


# Networks ------------------------------------------------------------------------------------------------------


def cnn() -> keras.Model:
    """Three convolutions."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, 2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, 2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ]
    )


def rnn() -> keras.Model:
    """A gated recurrent network that answers after the last step."""
    return keras.Sequential([keras.Input((40, 2)), layers.GRU(32), layers.Dense(1, name="output")])


def autoencoder() -> keras.Model:
    """Through four numbers and back, with saturating units (as Hinton & Salakhutdinov 2006)."""
    widths = (48, 24, 12)
    inner = [layers.Dense(n, "tanh") for n in widths]
    outer = [layers.Dense(n, "tanh") for n in reversed(widths)]
    return keras.Sequential([keras.Input((64,)), *inner, layers.Dense(4), *outer, layers.Dense(64, name="output")])


def vision_transformer(width: int = 32, blocks: int = 2, heads: int = 2) -> keras.Model:
    """Patches of 2 by 2, normalised before each part."""
    pixels = keras.Input((8, 8, 1))
    x = layers.Reshape((16, width))(layers.Conv2D(width, 2, 2, name="patches")(pixels))
    x = language_model.LearnedPositions(name="positions")(x)
    for _ in range(blocks):
        h = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(h, h)
        h = layers.Dense(2 * width, "gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(h)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(pixels, layers.Dense(10, name="logits")(x))


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "text",
            "bytes of text,\ntransformer",
            text,
            lambda: language_model.build_model(TINY),
            bits,
            "bits per byte",
            target=3.0,
            steps=400,
            every=10,
            batch_size=8,
        ),
        Workload("cnn", "digits,\nCNN", digits, cnn, cross_entropy, "nats", 0.1, 400, 10, 32),
        Workload("rnn", "adding problem,\nGRU", adding, rnn, squared_error, "squared error", 0.002, 800, 20, 32),
        Workload(
            "autoencoder",
            "digits,\nautoencoder",
            images,
            autoencoder,
            squared_error,
            "squared error",
            0.024,
            3000,
            50,
            64,
        ),
        Workload(
            "vit", "digits,\nvision transformer", digits, vision_transformer, cross_entropy, "nats", 0.2, 400, 10, 32
        ),
    )
}
"""Name -> workload. A new one is a row."""

"""Small tasks that train in seconds: data, network, loss and a rate that works.

The tuning half and the held-out half have no data, network or seed in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import keras
import numpy as np
from keras import layers
from sklearn import datasets

__all__ = ["SEEDS", "TASKS", "Data", "Task"]


@dataclass(frozen=True)
class Data:
    """Training and validation arrays."""

    x: np.ndarray
    y: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Args:
        half: "tuning" or "held-out".
        data: seed -> `Data`.
        network: options -> layers of a model without its input; options are passed by the cases.
        loss: of Keras, by name or object.
        classes: 0 for a regression.
        rate, sgd_rate: of Adam, and of SGD with momentum, that work.
        batch_size, updates: of the healthy training.
    """

    name: str
    half: str
    data: Callable[[int], Data]
    network: Callable[..., keras.Model]
    loss: Any
    classes: int = 0
    rate: float = 3e-3
    sgd_rate: float = 0.05
    batch_size: int = 32
    updates: int = 300
    options: dict[str, Any] = field(default_factory=dict)

    def baseline(self, data: Data) -> float:
        """Loss of a model that knows only how often each answer occurs."""
        if self.classes:
            shares = np.bincount(data.y.astype(int).ravel(), minlength=self.classes) / data.y.size
            return float(-np.sum(shares * np.log(np.maximum(shares, 1e-12))))
        return float(np.var(data.y))

    def model(self, data: Data, **options: Any) -> keras.Model:
        """A new network."""
        return self.network(data, **(self.options | options))


SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


# Data --------------------------------------------------------------------------------------------------------


def split(x: np.ndarray, y: np.ndarray, seed: int, share: float = 0.8, kind: str = "float32") -> Data:
    """Shuffled, and cut in two."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y, cut = x[order].astype(kind), y[order], int(share * len(x))
    y = y.astype("int32") if y.dtype.kind in "iu" else y.astype("float32").reshape(len(y), -1)
    return Data(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def digits(seed: int, image: bool = False, rows: bool = False) -> Data:
    found = datasets.load_digits()
    x = found.data / 16
    return split(x.reshape(-1, 8, 8, 1) if image else x.reshape(-1, 8, 8) if rows else x, found.target, seed)


@cache
def diabetes(seed: int, raw: bool = False) -> Data:
    found = datasets.load_diabetes()
    x, y = found.data / found.data.std(0), found.target
    return split(x, y if raw else (y - y.mean()) / y.std(), seed)


@cache
def cancer(seed: int) -> Data:
    found = datasets.load_breast_cancer()
    return split((found.data - found.data.mean(0)) / found.data.std(0), found.target.astype("float32"), seed)


@cache
def friedman(seed: int, raw: bool = False) -> Data:
    x, y = datasets.make_friedman1(1200, noise=1.0, random_state=seed)
    return split(x * 2 - 1, y * 12 if raw else (y - y.mean()) / y.std(), seed)


@cache
def adding(seed: int, length: int = 12) -> Data:
    """Add the two numbers of a sequence that are marked (Hochreiter & Schmidhuber 1997)."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(-1, 1, (1500, length)), np.zeros((1500, length))], -1)
    for row in x:
        row[rng.choice(length, 2, replace=False), 1] = 1
    return split(x, 2 * (x[..., 0] * x[..., 1]).sum(1), seed)


@cache
def waves(seed: int, length: int = 40) -> Data:
    """Tell sines, squares and sawteeth apart."""
    rng = np.random.default_rng(seed)
    t = np.arange(length) / length
    phase = t * rng.uniform(2, 4, (1500, 1)) + rng.uniform(0, 1, (1500, 1))
    kind = rng.integers(3, size=1500)
    shapes = [np.sin(2 * np.pi * phase), np.sign(np.sin(2 * np.pi * phase)), 2 * (phase % 1) - 1]
    x = np.choose(kind[:, None], shapes) + 0.3 * rng.normal(size=phase.shape)
    return split(x[..., None], kind, seed)


@cache
def sine(seed: int, length: int = 20) -> Data:
    """The next value of a noisy sum of two sines."""
    rng = np.random.default_rng(seed)
    t = np.arange(length + 1) + rng.uniform(0, 50, (1200, 1))
    x = np.sin(0.4 * t) + 0.5 * np.sin(0.93 * t + 1) + 0.1 * rng.normal(size=t.shape)
    return split(x[:, :-1, None], x[:, -1], seed)


@cache
def topics(seed: int, words: int = 5000, length: int = 20, classes: int = 4) -> Data:
    """Bags of words: each class prefers a part of the vocabulary."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=2000)
    common = (words * rng.power(0.3, (2000, length))).astype(int)
    own = (y[:, None] * (words // classes) + rng.integers(words // classes, size=(2000, length))).astype(int)
    x = np.where(rng.random((2000, length)) < 0.3, own, common) % words
    return split(x, y, seed, kind="int32")


@cache
def ratings(seed: int, people: int = 400, things: int = 300) -> Data:
    """Ratings of things by people, of rank 3."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(people, 3)), rng.normal(size=(things, 3))
    i, j = rng.integers(people, size=6000), rng.integers(things, size=6000)
    y = (a[i] * b[j]).sum(1) / 3**0.5 + 0.1 * rng.normal(size=6000)
    return split(np.stack([i, j], 1), y, seed, kind="int32")


@cache
def periodic(seed: int, length: int = 16, symbols: int = 12) -> Data:
    """Next symbol in sequences that repeat with a period of 2 to 5."""
    rng = np.random.default_rng(seed)
    rows = [np.resize(rng.integers(symbols, size=rng.integers(2, 6)), length + 1) for _ in range(1500)]
    x = np.stack(rows)
    return split(x[:, :-1], x[:, 1:], seed, kind="int32")


@cache
def counting(seed: int, length: int = 10, symbols: int = 10) -> Data:
    """How often the first symbol of a sequence occurs in it: 1, 2 or more."""
    x = np.random.default_rng(seed).integers(symbols, size=(2500, length))
    return split(x, np.minimum((x == x[:, :1]).sum(1), 3) - 1, seed, kind="int32")


# Networks ----------------------------------------------------------------------------------------------------


def sequential(data: Data, parts: list[Any]) -> keras.Model:
    """The layers behind an input of the data's shape, by the names they have in the order of the model."""
    return keras.Sequential([keras.Input(data.x.shape[1:], dtype=data.x.dtype.name), *parts])


def mlp(
    data: Data, outputs: int, widths: tuple[int, ...] = (32, 32), activation: str = "relu", **dense: Any
) -> keras.Model:
    first, last = dense.pop("first", {}), dense.pop("last", {})
    parts = []
    for i, width in enumerate(widths):
        parts.append(layers.Dense(width, activation, name=f"hidden_{i}", **(dense | (first if i == 0 else {}))))
    return sequential(data, [*parts, layers.Dense(outputs, name="output", **last)])


def cnn(data: Data, outputs: int, activation: str = "relu", last: dict[str, Any] | None = None, **conv: Any) -> Any:
    one = data.x.ndim == 3
    kind, pool = (layers.Conv1D, layers.GlobalAveragePooling1D) if one else (layers.Conv2D, layers.Flatten)
    first = conv.pop("first", {})
    parts = [
        kind(8, 3, activation=activation, padding="same", name="conv_0", **(conv | first)),
        kind(16, 3, strides=2, activation=activation, name="conv_1", **conv),
        pool(),
        layers.Dense(outputs, name="output", **(last or {})),
    ]
    return sequential(data, parts)


def rnn(data: Data, outputs: int, cell: str = "SimpleRNN", last: dict[str, Any] | None = None, **options: Any) -> Any:
    recurrent = getattr(layers, cell)(24, name="recurrent", **options)
    return sequential(data, [recurrent, layers.Dense(outputs, name="output", **(last or {}))])


def bag(data: Data, outputs: int, words: int = 5000, last: dict[str, Any] | None = None, **dense: Any) -> Any:
    parts = [
        layers.Embedding(words, 16, name="embedding"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(16, "relu", name="hidden_0", **dense),
        layers.Dense(outputs, name="output", **(last or {})),
    ]
    return sequential(data, parts)


def pairs(data: Data, outputs: int, last: dict[str, Any] | None = None, **dense: Any) -> keras.Model:
    inputs = keras.Input((2,), dtype="int32")
    a = layers.Embedding(400, 12, name="people")(inputs[:, 0])
    b = layers.Embedding(300, 12, name="things")(inputs[:, 1])
    x = layers.Dense(24, "relu", name="hidden_0", **dense)(layers.Concatenate()([a, b, layers.Multiply()([a, b])]))
    return keras.Model(inputs, layers.Dense(outputs, name="output", **(last or {}))(x))


def transformer(
    data: Data, outputs: int, symbols: int = 12, pooled: bool = False, last: dict[str, Any] | None = None, **dense: Any
) -> keras.Model:
    width, length = 32, data.x.shape[1]
    inputs = keras.Input((length,), dtype="int32")
    positions = layers.Embedding(length, width, name="positions")(keras.ops.arange(length))
    x = layers.Embedding(symbols, width, name="embedding")(inputs) + positions
    for block in range(2):
        h = layers.LayerNormalization(name=f"norm_{block}_1")(x)
        x = x + layers.MultiHeadAttention(4, width // 4, name=f"attention_{block}")(h, h, use_causal_mask=not pooled)
        h = layers.LayerNormalization(name=f"norm_{block}_2")(x)
        h = layers.Dense(4 * width, "gelu", name=f"mlp_{block}_in", **dense)(h)
        x = x + layers.Dense(width, name=f"mlp_{block}_out", **dense)(h)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D()(x) if pooled else x
    return keras.Model(inputs, layers.Dense(outputs, name="output", **(last or {}))(x))


TASKS = {
    task.name: task
    for task in (
        Task("digits", "tuning", digits, partial(mlp, outputs=10), SPARSE, 10),
        Task("diabetes", "tuning", diabetes, partial(mlp, outputs=1), "mse", rate=2e-3, sgd_rate=0.005),
        Task("images", "tuning", partial(digits, image=True), partial(cnn, outputs=10), SPARSE, 10),
        Task("adding", "tuning", adding, partial(rnn, outputs=1), "mse"),
        Task("topics", "tuning", topics, partial(bag, outputs=4), SPARSE, 4, rate=1e-2, updates=100),
        Task("periodic", "tuning", periodic, partial(transformer, outputs=12), SPARSE, 12),
        Task("cancer", "held-out", cancer, partial(mlp, outputs=1, widths=(24, 16)), BINARY, 2),
        Task("friedman", "held-out", friedman, partial(mlp, outputs=1, widths=(48, 24)), "mse", sgd_rate=0.01),
        Task("waves", "held-out", waves, partial(cnn, outputs=3), SPARSE, 3),
        Task("sine", "held-out", sine, partial(rnn, outputs=1, cell="GRU"), "mse"),
        Task("ratings", "held-out", ratings, partial(pairs, outputs=1), "mse", batch_size=64),
        Task("counting", "held-out", counting, partial(transformer, outputs=3, symbols=10, pooled=True), SPARSE, 3),
    )
}
"""All tasks by name."""

SEEDS = {"tuning": (0, 1, 2), "held-out": (10, 11, 12)}
"""Seeds of the runs of each half."""

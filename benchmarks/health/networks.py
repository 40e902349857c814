"""Networks of the small tasks. Their first layer is called hidden_0, conv_0 or recurrent, and the last one output."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from benchmarks.health.data import Data


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


def normed(data: Data, outputs: int, widths: tuple[int, ...] = (32, 16), **dense: Any) -> keras.Model:
    """Dense, BatchNormalization, ReLU."""
    first, last = dense.pop("first", {}), dense.pop("last", {})
    parts: list[Any] = []
    for i, width in enumerate(widths):
        options = dense | (first if i == 0 else {})
        parts += [layers.Dense(width, name=f"hidden_{i}", **options), layers.BatchNormalization(), layers.ReLU()]
    return sequential(data, [*parts, layers.Dense(outputs, name="output", **last)])


def vision(data: Data, outputs: int, patch: int = 3, last: dict[str, Any] | None = None, **dense: Any) -> keras.Model:
    """A small vision transformer (Dosovitskiy et al. 2021), pooled by the mean."""
    width, inputs = 24, keras.Input(data.x.shape[1:])
    x = layers.Conv2D(width, patch, strides=patch, name="conv_0")(inputs)
    count = x.shape[1] * x.shape[2]
    x = layers.Reshape((count, width))(x) + layers.Embedding(count, width, name="positions")(keras.ops.arange(count))
    for block in range(2):
        h = layers.LayerNormalization(name=f"norm_{block}_1")(x)
        x = x + layers.MultiHeadAttention(3, width // 3, name=f"attention_{block}")(h, h)
        h = layers.LayerNormalization(name=f"norm_{block}_2")(x)
        h = layers.Dense(2 * width, "gelu", name=f"mlp_{block}_in", **dense)(h)
        x = x + layers.Dense(width, name=f"mlp_{block}_out", **dense)(h)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(outputs, name="output", **(last or {}))(x))


def coder(data: Data, width: int = 4, last: dict[str, Any] | None = None, **dense: Any) -> keras.Model:
    """An autoencoder."""
    first = dense.pop("first", {})
    size = data.x.shape[1]
    parts = [
        layers.Dense(32, "elu", name="hidden_0", **(dense | first)),
        layers.Dense(width, name="code", **dense),
        layers.Dense(32, "elu", name="hidden_1", **dense),
        layers.Dense(size, name="output", **(last or {})),
    ]
    return sequential(data, parts)


def tagger(data: Data, outputs: int, symbols: int = 30, last: dict[str, Any] | None = None, **dense: Any) -> Any:
    """An embedding, a recurrent layer in both directions, an answer for each place."""
    parts = [
        layers.Embedding(symbols, 12, name="embedding"),
        layers.Bidirectional(layers.GRU(12, return_sequences=True), name="recurrent"),
        layers.Dense(16, "relu", name="hidden_0", **dense),
        layers.Dense(outputs, name="output", **(last or {})),
    ]
    return sequential(data, parts)

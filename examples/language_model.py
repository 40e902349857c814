"""A byte-level language model: its text, its network and its sampling. The examples share this file.

The text is the source code of Python's own standard library, read from the running interpreter, so nothing
is downloaded. A token is a byte. Files are split into training and validation by a hash of their name, so the
model is judged on files it has never seen.
"""

from __future__ import annotations

import hashlib
import math
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

VOCABULARY = 256
# Left out: installed packages, tests, tables of characters and of help topics, this machine's build settings.
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}
SKIPPED_PREFIX = "_sysconfigdata"


@dataclass(frozen=True)
class Size:
    """Shape of the network and of a batch, with the peak learning rate that suits it."""

    layers: int
    width: int
    heads: int
    context: int
    batch_size: int
    learning_rate: float


SIZES = {
    "tiny": Size(layers=1, width=32, heads=2, context=64, batch_size=8, learning_rate=1e-2),
    "small": Size(layers=3, width=192, heads=4, context=128, batch_size=8, learning_rate=3e-3),
    "medium": Size(layers=6, width=256, heads=8, context=256, batch_size=16, learning_rate=1e-3),
}


# --- Text ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Training and validation text as arrays of bytes; `digest` names exactly this text."""

    train: np.ndarray
    validation: np.ndarray
    digest: str


def read_corpus() -> Corpus:
    """Reads the standard library's source files; about one file in twenty goes to validation."""
    root = Path(sysconfig.get_paths()["stdlib"])
    parts: dict[bool, list[bytes]] = {False: [], True: []}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if SKIPPED.isdisjoint(name.parts) and not path.name.startswith(SKIPPED_PREFIX):
            is_validation = hashlib.sha256(name.as_posix().encode()).digest()[0] % 20 == 0
            parts[is_validation].append(path.read_bytes())
    if not parts[False] or not parts[True]:
        raise FileNotFoundError(f"Found too few .py files in {root}; this Python comes without its sources.")
    train, validation = b"\0".join(parts[False]), b"\0".join(parts[True])
    digest = hashlib.sha256(train + validation).hexdigest()[:16]
    return Corpus(np.frombuffer(train, np.uint8), np.frombuffer(validation, np.uint8), digest)


def windows(text: np.ndarray, starts: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, both (len(starts), context): the target is the byte after each input byte."""
    rows = text[starts[:, None] + np.arange(context + 1)].astype(np.int32)
    return rows[:, :-1], rows[:, 1:]


def training_batches(text: np.ndarray, first: int, last: int, size: Size, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Batches `first` to `last - 1`, one after the other: a pure function, so a run can go on from any batch.

    An epoch cuts the text into windows, beginning at an offset of its own, and takes them in a random order.
    """
    per_epoch = (len(text) - 1) // size.context - 1
    position = np.arange(first * size.batch_size, last * size.batch_size)
    starts = np.empty_like(position)
    for epoch in np.unique(position // per_epoch):
        random = np.random.default_rng((seed, epoch))
        epoch_starts = random.integers(size.context) + size.context * random.permutation(per_epoch)
        inside = position // per_epoch == epoch
        starts[inside] = epoch_starts[position[inside] % per_epoch]
    return windows(text, starts, size.context)


def validation_windows(text: np.ndarray, count: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` windows spread evenly over the text, always the same ones."""
    return windows(text, np.linspace(0, len(text) - context - 1, count).astype(np.int64), context)


def unigram_bits(text: np.ndarray, targets: np.ndarray) -> float:
    """Bits per byte of a model that knows only how often each byte occurs in `text` (add-one smoothing)."""
    counts = np.bincount(text, minlength=VOCABULARY) + 1
    return float(-np.log2(counts / counts.sum())[targets].mean())


# --- Network ------------------------------------------------------------------------------------------------


class LearnedPositions(keras.layers.Layer):
    """Adds one learned vector per position."""

    def build(self, input_shape):
        self.embedding = self.add_weight(shape=input_shape[1:], initializer=normal(0.02), name="embedding")

    def call(self, x):
        return x + self.embedding


def normal(deviation: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=deviation)


def build_model(size: Size) -> keras.Model:
    """A decoder-only transformer, normalised before each part, that gives logits over the next byte."""
    layers = keras.layers
    tokens = keras.Input((size.context,), dtype="int32", name="tokens")
    # As large as what the blocks add to it: with 0.02 the byte itself would drown, and learning begin slowly.
    x = layers.Embedding(VOCABULARY, size.width, embeddings_initializer=normal(1.0), name="embedding")(tokens)
    # A byte alone says little. Shown the three before it, the attention need not first learn to find them.
    x = x + layers.Conv1D(size.width, 4, padding="causal", name="neighbours")(x)
    x = LearnedPositions(name="positions")(x)
    for block in range(size.layers):
        name = f"block_{block}"
        h = layers.LayerNormalization(name=f"{name}_norm_1")(x)
        attention = layers.MultiHeadAttention(size.heads, size.width // size.heads, name=f"{name}_attention")
        x = x + attention(h, h, use_causal_mask=True)
        h = layers.LayerNormalization(name=f"{name}_norm_2")(x)
        h = layers.Dense(4 * size.width, activation="gelu", name=f"{name}_mlp_in")(h)
        x = x + layers.Dense(size.width, kernel_initializer=normal(0.02), name=f"{name}_mlp_out")(h)
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(tokens, layers.Dense(VOCABULARY, kernel_initializer=normal(0.02), name="logits")(x))


def bits_per_byte(model: keras.Model, data: tuple[np.ndarray, np.ndarray], batch_size: int) -> float:
    """Mean cross-entropy in bits (Keras gives nats)."""
    return model.evaluate(*data, batch_size=batch_size, verbose=0) / math.log(2)


# --- Sampling -----------------------------------------------------------------------------------------------


def sample(model: keras.Model, prompt: str, length: int, temperature: float = 0.7, seed: int = 0) -> str:
    """Continues `prompt` by `length` bytes.

    The window is filled up on the right: the network looks only to the left, so the filling changes nothing,
    and one shape means one compilation.
    """
    random = np.random.default_rng(seed)
    context = model.input_shape[1]
    text = list(prompt.encode())
    for _ in range(length):
        visible = text[-context:]
        window = np.zeros((1, context), np.int32)
        window[0, : len(visible)] = visible
        logits = np.asarray(model.predict_on_batch(window))[0, len(visible) - 1].astype(np.float64)
        weights = np.exp((logits - logits.max()) / temperature)
        text.append(int(random.choice(VOCABULARY, p=weights / weights.sum())))
    return bytes(text).decode("utf-8", errors="replace")

"""Data of the small tasks, made from a seed: of scikit-learn, and generated.

What is used by both halves of the suite is `split` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn import datasets

__all__ = ["Data"]


@dataclass(frozen=True)
class Data:
    """Training and validation arrays."""

    x: np.ndarray
    y: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray


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


@cache
def parity(seed: int, bits: int = 8) -> Data:
    """Whether the number of ones among 5 of the bits is odd: nothing is gained until nearly all is."""
    x = np.random.default_rng(seed).integers(2, size=(3000, bits))
    return split(2.0 * x - 1, x[:, :5].sum(1) % 2, seed)


@cache
def moons(seed: int) -> Data:
    x, y = datasets.make_moons(1500, noise=0.2, random_state=seed)
    return split((x - x.mean(0)) / x.std(0), y, seed)


@cache
def swiss(seed: int, raw: bool = False) -> Data:
    """The place along a rolled sheet, from the point in space."""
    x, y = datasets.make_swiss_roll(1500, noise=0.3, random_state=seed)
    return split((x - x.mean(0)) / x.std(0), y * 40 if raw else (y - y.mean()) / y.std(), seed)


@cache
def wine(seed: int) -> Data:
    found = datasets.load_wine()
    return split((found.data - found.data.mean(0)) / found.data.std(0), found.target, seed)


@cache
def shapes(seed: int, side: int = 12) -> Data:
    """Images of a bar, a frame, a cross or a disc, somewhere, with noise."""
    rng = np.random.default_rng(seed)
    a, b = np.mgrid[:side, :side]
    x, y = np.zeros((1600, side, side)), rng.integers(4, size=1600)
    for image, kind in zip(x, y, strict=True):
        r, i, j = rng.integers(2, 4), *rng.integers(3, side - 3, size=2)
        p, q = np.abs(a - i), np.abs(b - j)
        drawn = (
            (p <= 0) & (q <= r),
            np.maximum(p, q) == r,
            ((p == 0) & (q <= r)) | ((q == 0) & (p <= r)),
            p**2 + q**2 <= r**2,
        )
        image += drawn[kind]
    x += 0.2 * rng.normal(size=x.shape)
    return split(x[..., None], y, seed)


@cache
def brackets(seed: int, length: int = 14) -> Data:
    """Whether a row of opening and closing brackets ends open, even or overdrawn, as far as it was not before."""
    steps = np.random.default_rng(seed).choice([-1, 1], size=(2500, length))
    height = steps.cumsum(1)
    y = np.where(height.min(1) < -2, 2, (height[:, -1] > 0).astype(int))
    return split((steps[..., None] + 1) / 2, y, seed)


@cache
def codes(seed: int, width: int = 24, rank: int = 4) -> Data:
    """Rows of a curved sheet of rank 4 in 24 dimensions, to be copied through a narrow layer."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(1500, rank))
    x = np.tanh(z @ rng.normal(size=(rank, width))) + 0.05 * rng.normal(size=(1500, width))
    found = split(x, x, seed)
    return found


@cache
def tags(seed: int, length: int = 12, symbols: int = 30) -> Data:
    """For each symbol of a row: first of its kind, seen before, or the same as its neighbour."""
    x = np.random.default_rng(seed).zipf(1.6, size=(1200, length)).clip(max=symbols) - 1
    seen = np.array([[symbol in row[:i] for i, symbol in enumerate(row)] for row in x])
    same = np.concatenate([np.zeros((len(x), 1), bool), x[:, 1:] == x[:, :-1]], axis=1)
    return split(x, np.where(same, 2, seen.astype(int)), seed, kind="int32")

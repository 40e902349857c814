"""Data of the tasks that were looked at once, when all rules were as they are."""

from __future__ import annotations

import inspect
import textwrap
from functools import cache

import numpy as np
from sklearn import datasets

from benchmarks.health.data import Data, split


@cache
def quantiles(seed: int) -> Data:
    """Shells of a normal distribution in 6 dimensions."""
    x, y = datasets.make_gaussian_quantiles(n_samples=1800, n_features=6, n_classes=3, random_state=seed)
    return split(x, y, seed)


@cache
def surface(seed: int, raw: bool = False) -> Data:
    """A bent surface over 5 dimensions, with an edge."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (1400, 5))
    y = np.sin(3 * x[:, 0]) * np.exp(-(x[:, 1] ** 2)) + np.abs(x[:, 2]) - 0.5 * x[:, 3] * x[:, 4]
    y = y + 0.1 * rng.normal(size=len(y))
    return split(x, y * 60 if raw else (y - y.mean()) / y.std(), seed)


@cache
def letters(seed: int, length: int = 24) -> Data:
    """The next letter in the source of Python's `textwrap`: 0 to 31, capitals and small ones alike."""
    text = np.frombuffer(inspect.getsource(textwrap).encode(), np.uint8) & 31
    starts = np.random.default_rng(seed).integers(len(text) - length - 1, size=1500)
    rows = np.stack([text[start : start + length + 1] for start in starts]).astype("int32")
    return split(rows[:, :-1], rows[:, 1:], seed, kind="int32")


@cache
def decay(seed: int, length: int = 16) -> Data:
    """A mean of a noisy sequence in which old values count less."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1500, length)).cumsum(1) / length**0.5
    weights = 0.8 ** np.arange(length)[::-1]
    y = (x @ weights) / weights.sum()
    return split(x[..., None] + 0.05 * rng.normal(size=(*x.shape, 1)), (y - y.mean()) / y.std(), seed)


@cache
def textures(seed: int, side: int = 10) -> Data:
    """Gratings of four directions under noise."""
    rng = np.random.default_rng(seed)
    a, b = np.mgrid[:side, :side]
    kind = rng.integers(4, size=1500)
    angle = (kind * np.pi / 4)[:, None, None]
    phase = rng.uniform(0, 2 * np.pi, (1500, 1, 1))
    wave = np.sin(1.3 * (a * np.cos(angle) + b * np.sin(angle)) + phase)
    return split((wave + 0.5 * rng.normal(size=wave.shape))[..., None], kind, seed)


@cache
def spectra(seed: int, width: int = 32) -> Data:
    """Rows of two peaks on a slope, to be copied through a narrow layer."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, width)
    place, size = rng.uniform(0.1, 0.9, (1500, 2, 1)), rng.uniform(0.5, 1.5, (1500, 2, 1))
    x = (size * np.exp(-(((t - place) / 0.1) ** 2))).sum(1) + rng.normal(size=(1500, 1)) * 0.3 * t
    x = x + 0.03 * rng.normal(size=x.shape)
    return split(x, x, seed)


@cache
def iris(seed: int) -> Data:
    found = datasets.load_iris()
    return split((found.data - found.data.mean(0)) / found.data.std(0), found.target, seed)

"""Small tasks that train in seconds: data, network, loss and a rate that works.

The tuning half, the held-out half and the blind part have no data or seed in common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np

from benchmarks.health import blind_data, data, networks
from benchmarks.health.data import Data

__all__ = ["SEEDS", "TASKS", "Task"]


@dataclass(frozen=True)
class Task:
    """Something to learn.

    Args:
        half: "tuning", "held-out" or "blind".
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

TASKS = {
    task.name: task
    for task in (
        Task("digits", "tuning", data.digits, partial(networks.mlp, outputs=10), SPARSE, 10),
        Task("diabetes", "tuning", data.diabetes, partial(networks.mlp, outputs=1), "mse", rate=2e-3, sgd_rate=0.005),
        Task("images", "tuning", partial(data.digits, image=True), partial(networks.cnn, outputs=10), SPARSE, 10),
        Task("adding", "tuning", data.adding, partial(networks.rnn, outputs=1), "mse"),
        Task("topics", "tuning", data.topics, partial(networks.bag, outputs=4), SPARSE, 4, rate=1e-2, updates=100),
        Task("periodic", "tuning", data.periodic, partial(networks.transformer, outputs=12), SPARSE, 12),
        Task("cancer", "tuning", data.cancer, partial(networks.mlp, outputs=1, widths=(24, 16)), BINARY, 2),
        Task(
            "friedman", "tuning", data.friedman, partial(networks.mlp, outputs=1, widths=(48, 24)), "mse", sgd_rate=0.01
        ),
        Task("waves", "tuning", data.waves, partial(networks.cnn, outputs=3), SPARSE, 3),
        Task("sine", "tuning", data.sine, partial(networks.rnn, outputs=1, cell="GRU"), "mse"),
        Task("ratings", "tuning", data.ratings, partial(networks.pairs, outputs=1), "mse", batch_size=64),
        Task(
            "counting",
            "tuning",
            data.counting,
            partial(networks.transformer, outputs=3, symbols=10, pooled=True),
            SPARSE,
            3,
        ),
        Task("parity", "tuning", data.parity, partial(networks.mlp, outputs=2, widths=(64,)), SPARSE, 2, updates=600),
        Task("moons", "held-out", data.moons, partial(networks.mlp, outputs=2, widths=(32, 16)), SPARSE, 2),
        Task(
            "swiss", "held-out", data.swiss, partial(networks.mlp, outputs=1, widths=(40, 20, 10)), "mse", sgd_rate=0.01
        ),
        Task("wine", "held-out", data.wine, partial(networks.normed, outputs=3), SPARSE, 3, batch_size=16, updates=200),
        Task("shapes", "held-out", data.shapes, partial(networks.vision, outputs=4), SPARSE, 4),
        Task(
            "brackets", "held-out", data.brackets, partial(networks.rnn, outputs=3, cell="LSTM"), SPARSE, 3, rate=1e-2
        ),
        Task("codes", "held-out", data.codes, networks.coder, "mse", sgd_rate=0.1),
        Task("tags", "held-out", data.tags, partial(networks.tagger, outputs=3), SPARSE, 3),
        Task("quantiles", "blind", blind_data.quantiles, partial(networks.mlp, outputs=3, widths=(40, 20)), SPARSE, 3),
        Task(
            "surface",
            "blind",
            blind_data.surface,
            partial(networks.mlp, outputs=1, widths=(64, 32)),
            "mse",
            sgd_rate=0.02,
        ),
        Task("letters", "blind", blind_data.letters, partial(networks.transformer, outputs=32, symbols=32), SPARSE, 32),
        Task("decay", "blind", blind_data.decay, partial(networks.rnn, outputs=1), "mse"),
        Task("textures", "blind", blind_data.textures, partial(networks.cnn, outputs=4), SPARSE, 4),
        Task("spectra", "blind", blind_data.spectra, partial(networks.coder, width=6), "mse", sgd_rate=0.1),
        Task(
            "iris", "blind", blind_data.iris, partial(networks.normed, outputs=3), SPARSE, 3, batch_size=16, updates=200
        ),
    )
}
"""All tasks by name."""

SEEDS = {"tuning": (0, 1, 2), "held-out": (20, 21, 22), "blind": (40, 41, 42)}
"""Seeds of the runs of each half."""

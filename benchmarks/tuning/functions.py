"""Synthetic objectives over the options of an optimizer, with noise: the shapes that losses have in them.

Each is a function of the configuration whose minimum over the space is 0, and which is around 1 far from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from capibara_keras.tuning import SearchSpace

SEED_SPACE = {
    "learning_rate": [1e-5, 1e-3, "log"],
    "beta1": [0.85, 0.95, "uniform"],
    "beta2": [0.9, 0.999, "uniform"],
    "weight_decay": [0.0, 0.2, "uniform"],
    "warmup_steps": [500, 5000, "int"],
    "gradient_clip_norm": [0.1, 2.0, "uniform"],
}
CONDITIONAL_SPACE = {
    "algorithm": ["adam", "sgd", "choice"],
    "learning_rate": [1e-5, 1.0, "log"],
    "beta1": [0.8, 0.99, "uniform"],
    "momentum": [0.0, 0.99, "uniform"],
    "nesterov": "bool",
    "weight_decay": [1e-5, 1e-1, "log"],
}
NOISE = 0.02


@dataclass(frozen=True)
class Objective:
    """A function and its space.

    Args:
        unseen: not looked at while the search was tuned.
    """

    space: SearchSpace
    loss: Callable[[SearchSpace, Mapping[str, Any]], float]
    unseen: bool = False


def quadratic(space: SearchSpace, c: Mapping[str, Any]) -> float:
    """A bowl; two options matter, two a little, two hardly."""
    centre, weights = (0.7, 0.4, 0.6, 0.3, 0.25, 0.5), (2.0, 0.6, 0.15, 1.0, 0.3, 0.05)
    return sum(w * (u - m) ** 2 for u, m, w in zip(space.units(c), centre, weights, strict=True))


def branin(space: SearchSpace, c: Mapping[str, Any]) -> float:
    """Branin's function of rate and decay (three equal valleys), and a weak bowl in the rest."""
    u = space.units(c)
    x, y = 15 * u[0] - 5, 15 * u[3]
    value = (y - 5.1 * x**2 / (4 * math.pi**2) + 5 * x / math.pi - 6) ** 2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x)
    return (value + 10 - 0.397887) / 100 + 0.2 * ((u[1] - 0.3) ** 2 + (u[4] - 0.6) ** 2)


def cliff(space: SearchSpace, c: Mapping[str, Any]) -> float:
    """The rate should be as large as is stable, and how large that is depends on beta2 and warmup; beyond it the loss
    is not finite."""
    u = space.units(c)
    edge = 0.55 + 0.25 * u[4] + 0.15 * (1 - u[2])
    if u[0] > edge:
        return math.inf
    return 2.2 * (0.95 - u[0]) ** 2 + 0.3 * (u[3] - 0.4) ** 2 + 0.1 * (u[1] - 0.5) ** 2


def valley(space: SearchSpace, c: Mapping[str, Any]) -> float:
    """A narrow curved valley: rate and beta1 trade against each other (Rosenbrock)."""
    u = space.units(c)
    x, y = 3 * u[0] - 1.5, 3 * u[1] - 0.5
    return (math.log1p(20 * (y - x**2) ** 2 + (1 - x) ** 2)) / 4 + 0.1 * (u[3] - 0.5) ** 2


def plateau(space: SearchSpace, c: Mapping[str, Any]) -> float:
    """Flat far away, one funnel with ripples."""
    u = space.units(c)
    centre, weights = (0.65, 0.3, 0.8, 0.2, 0.4, 0.7), (1.0, 0.5, 0.5, 0.7, 0.2, 0.2)
    r = math.sqrt(sum(w * (a - m) ** 2 for a, m, w in zip(u, centre, weights, strict=True)))
    return 1 - math.exp(-4 * r**2) + 0.05 * (1 - math.cos(6 * math.pi * (u[0] - 0.65)))


def two_algorithms(space: SearchSpace, c: Mapping[str, Any]) -> float:
    """Adam is good in a wide range of rates; SGD a little better in a narrow one that moves with its momentum."""
    rate, decay = math.log10(c["learning_rate"]), math.log10(c["weight_decay"])
    rest = 0.02 * (decay + 2.5) ** 2
    if c["algorithm"] == "adam":
        return 0.05 + 0.12 * (rate + 3) ** 2 + 2 * (c["beta1"] - 0.9) ** 2 + rest
    effective = rate - math.log10(1 - c["momentum"])
    return 0.35 * (effective - 0.3) ** 2 + 0.2 * (c["momentum"] - 0.9) ** 2 + (0.0 if c["nesterov"] else 0.02) + rest


_SEED, _CONDITIONAL = SearchSpace.parse(SEED_SPACE), SearchSpace.parse(CONDITIONAL_SPACE)
FUNCTIONS = {
    "quadratic": Objective(_SEED, quadratic),
    "branin": Objective(_SEED, branin),
    "cliff": Objective(_SEED, cliff),
    "valley": Objective(_SEED, valley, unseen=True),
    "plateau": Objective(_SEED, plateau, unseen=True),
    "two algorithms": Objective(_CONDITIONAL, two_algorithms, unseen=True),
}

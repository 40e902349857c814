"""Who takes part: every algorithm of this package, and those of Keras that it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

import capibara_keras as ck
from benchmarks.training.workloads import Workload

__all__ = ["CONTENDERS", "Contender"]


@dataclass(frozen=True)
class Contender:
    """An optimizer with its default options.

    Args:
        make: a new one for a workload, at any rate.
        rate: the centre of its grid.
        has_schedule: its rate follows a schedule of its own, that the grid multiplies: the benchmark adds no warmup.
    """

    name: str
    make: Callable[[Workload], Any]
    rate: float
    has_schedule: bool = False


def ours(name: str, label: str = "", **options: Any) -> Contender:
    """The class of this package, whose default rate is that of `Optimizer`."""
    rule = {a.class_name: a for a in ck.algorithms()}[name]
    return Contender(label or name, lambda workload: getattr(ck, name)(**options), rule.default_learning_rate)


def stock(name: str) -> Contender:
    """Keras' class."""
    cls = getattr(keras.optimizers, name)
    return Contender(f"Keras {name}", lambda workload: cls(), float(cls().learning_rate))


def pretraining_recipe(workload: Workload) -> ck.Optimizer:
    """The pretraining recipe for this network and so many updates."""
    answers = workload.data().y.shape
    tokens = workload.batch_size * (answers[1] if len(answers) > 1 else 1)
    parameters, total = workload.network().count_params(), tokens * workload.steps
    return ck.Optimizer.create_pretraining_optimizer(parameters, total, workload.steps)


CONTENDERS = {
    contender.name: contender
    for contender in (
        *(ours(a.class_name) for a in ck.algorithms()),
        ours("SGD", "SGD, momentum 0.9", momentum=0.9, nesterov=True),
        Contender("Recipe: pretraining", pretraining_recipe, 1.0, has_schedule=True),
        *map(stock, ("Adam", "AdamW", "Muon", "ScheduleFreeAdamW")),
    )
}
"""Name -> contender. A new one is a row."""

"""What makes two searches the same one: only then does the second go on where the first ended."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import keras

from capibara_keras.errors import ConfigError
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.halving import Halving
from capibara_keras.tuning.runner import Task
from capibara_keras.tuning.state import Project
from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["identity", "known_trials"]


def identity(
    search: Search, algorithm: str, halving: Halving | None, task: Task, base: Values, model: keras.Model
) -> dict[str, Any]:
    """What a search must agree in to go on, as data for JSON. The number of trials is not in it: it may be raised.

    Args:
        search: its space and seed.
        algorithm: name in `ALGORITHMS`.
        halving: early termination.
        task: what every trial does. Of its data only what is small is compared.
        base: what every configuration has beside what is searched.
        model: compared by the shapes of its variables.
    """
    shapes = [tuple(v.shape) for v in model.weights]
    found = {
        "search_space": search.space.describe(),
        "optimization_metric": task.metric.name,
        "direction": "max" if task.metric.maximize else "min",
        "search_algorithm": algorithm,
        "early_termination": None if halving is None else dataclasses.asdict(halving),
        "seed": search.seed,
        "max_steps_per_trial": task.budget.steps,
        "validation_interval": task.budget.interval,
        "early_stopping_patience": task.patience,
        "other options": base,
        "model": f"{len(shapes)} variables with {sum(map(math.prod, shapes))} numbers",
        "batch_size": task.validation.batch_size,
        "validation_steps": task.validation.steps,
    }
    return dict(json.loads(json.dumps(found, default=_described)))


def known_trials(project: Project, identity: Mapping[str, Any]) -> list[TrialRecord]:
    """The trials in the directory.

    Raises:
        ConfigError: they are those of another search; it names the first difference.
    """
    state = project.load()
    if state is None:
        return []
    for name, value in identity.items():
        theirs = state["search"].get(name, value)  # the first versions wrote fewer
        if theirs != value:
            raise ConfigError(
                f"{project.folder} holds a search with another {name}: {theirs!r}, and this one has {value!r}. "
                "Choose another directory, or give overwrite=True to remove it"
            )
    trials = [TrialRecord.from_json(data) for data in state["trials"]]
    if trials and all(t.status == "failed" for t in trials if t.done):  # nothing ever worked: try again
        trials = [TrialRecord(t.number, t.options) for t in trials]
    return trials


def _described(value: Any) -> Any:
    """What JSON has no words for; the same in the next process, where `repr` has another address."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.optimizers.schedules.serialize(value)
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)

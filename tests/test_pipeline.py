"""Long runs with many options at once, against the NumPy transcription."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests import problem
from tests.reference import Reference, cosine_with_warmup
from tests.thinning import thinned

pytestmark = [
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
    pytest.mark.filterwarnings("ignore:SGD. nesterov together with dampening"),
]

MICRO_BATCHES = 200
LIMITS = {"float32": 4e-6, "float64": 1e-14}
"""Of differences relative to 1 + |expected|.

An update rounds a weight below 4 by at most 1.2e-7 in float32. As a random walk, 200 of them make
1.2e-7 · sqrt(200) = 1.7e-6; rounding the rate, the moments and the norms adds about as much again. In float64
the same is 2^29 times smaller. A wrong update is far off: the rates are 1e-2 and more.
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """Options, and what happens during the run.

    Args:
        options: of the optimizer and of the reference.
        warmup: a cosine schedule with this warmup, over 60 updates.
        constrained: keep the kernel non-negative, and the bias at most 0.5.
        missing: some variables have no gradient now and then.
        broken: share of micro-batches that are not finite.
        step_number: read the schedule at half the update's index.
        weighted: micro-batches weigh 1, 2, 3, 4, 1, …
    """

    options: dict[str, Any]
    warmup: int | None = None
    constrained: bool = False
    missing: bool = False
    broken: float = 0.0
    step_number: bool = False
    weighted: bool = False

    def micro_batches(self) -> Iterator[problem.Micro]:
        """The gradients of the run."""
        scale = self.options.get("loss_scale_factor", 1.0)
        if self.options.get("loss_divided"):
            scale /= self.options["gradient_accumulation_steps"]
        return problem.micro_batches(MICRO_BATCHES, scale=scale, missing=self.missing, broken=self.broken)


EXCLUDED = {"weight_decay_exclude": ("bias", "temperature")}
ADAM = {"algorithm": "adam", "learning_rate": 0.01}
ADAMW = {"algorithm": "adamw", "learning_rate": 0.02, "beta_2": 0.95, "weight_decay": 0.1}
MOMENTUM = {"algorithm": "sgd", "learning_rate": 0.02, "momentum": 0.9}
K3 = {"gradient_accumulation_steps": 3}

CASES = {
    "adam, all at once": Case(
        ADAM | K3 | EXCLUDED | {"weight_decay": 0.3, "global_clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.9},
        warmup=10,
        missing=True,
    ),
    "adam, constraints": Case(ADAM | {"clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.8}, constrained=True),
    "adam, loss scale": Case(ADAM | K3 | {"loss_scale_factor": 128.0, "global_clipnorm": 1.0, "epsilon": 1e-3}),
    "adam, no bias correction": Case(ADAM | {"correct_bias": False, "clipvalue": 0.3}, warmup=5),
    "amsgrad, l2": Case(ADAM | EXCLUDED | {"amsgrad": True, "weight_decay": 0.3, "weight_decay_mode": "l2"}),
    "amsgrad, independent decay": Case(
        ADAM | EXCLUDED | {"amsgrad": True, "weight_decay": 0.02, "weight_decay_mode": "independent", "maximize": True},
        warmup=10,
        step_number=True,
    ),
    "adamw, skips": Case(ADAMW | EXCLUDED | {"clipnorm": 0.7, "gradient_accumulation_steps": 2}, broken=0.1),
    "adamw, average replaces weights": Case(
        ADAMW | {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7, "clipvalue": 0.5},
        broken=0.1,
    ),
    "sgd, all at once": Case(
        {"algorithm": "sgd", "learning_rate": 0.05, "weight_decay": 0.5, "global_clipnorm": 1.0}
        | K3
        | EXCLUDED
        | {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 4},
        warmup=3,
        missing=True,
    ),
    "momentum, dampening, l2": Case(
        MOMENTUM | {"dampening": 0.3, "weight_decay": 0.1, "weight_decay_mode": "l2", "global_clipnorm": 1.0},
        missing=True,
        broken=0.1,
    ),
    "nesterov, maximize": Case(MOMENTUM | {"nesterov": True, "maximize": True, "clipnorm": 0.5, "weight_decay": 0.3}),
    "nesterov, dampening, independent decay": Case(
        MOMENTUM | K3 | {"nesterov": True, "dampening": 0.1, "weight_decay": 0.02, "weight_decay_mode": "independent"},
        constrained=True,
    ),
    "adamw, rates by variable, weighted sums": Case(
        ADAMW | K3 | {"differential_learning_rates": {"embedding": 0.1, "kernel": 2.0}, "normalize_gradients": False},
        weighted=True,
    ),
    "momentum, clipped micro-batches": Case(
        MOMENTUM
        | K3
        | {"defer_clip_until_accumulation": False, "global_clipnorm": 1.0}
        | {"loss_divided": True, "loss_scale_factor": 8.0},
        weighted=True,
        broken=0.05,
    ),
    "adam, dropped micro-batches": Case(
        ADAM | K3 | {"nonfinite": "drop_micro_batch", "clipvalue": 0.3, "loss_divided": True},
        weighted=True,
        broken=0.2,
    ),
    "sgd, micro-batches clipped by value": Case(
        {"algorithm": "sgd", "learning_rate": 0.05, "normalize_gradients": False, "loss_divided": True}
        | K3
        | {"defer_clip_until_accumulation": False, "clipvalue": 0.3},
        broken=0.1,
    ),
}

ROADS = {"fused": {}, "without jit": {"jit_compile": False}, "one variable at a time": {"foreach": False}}
"""Options that must not change any number."""

CONSTRAINTS = {"kernel": keras.constraints.NonNeg(), "bias": functools.partial(ops.minimum, 0.5)}
NUMPY_CONSTRAINTS = {"kernel": functools.partial(np.maximum, 0.0), "bias": functools.partial(np.minimum, 0.5)}


def errors(case: Case, road: str = "fused") -> dict[str, float]:
    """The largest difference between optimizer and reference, for everything that both report."""
    schedule, scheduled = None, {}
    if case.warmup is not None:
        schedule = cosine_with_warmup(case.options["learning_rate"], case.warmup, 60, 0.001)
        scheduled = {"scheduler_type": "cosine_with_warmup", "warmup_steps": case.warmup}
        scheduled |= {"max_steps": 60, "min_learning_rate": 0.001}
    constraints = NUMPY_CONSTRAINTS if case.constrained else None
    reference = Reference(problem.weights(), **case.options, schedule=schedule, constraints=constraints)
    variables = problem.variables(problem.weights(), CONSTRAINTS if case.constrained else None)
    optimizer = ck.Optimizer(**case.options, **scheduled, **ROADS[road])

    result: dict[str, float] = {}

    def compare(name: str, found: Any, expected: Any) -> None:
        worst = float(np.max(np.abs(np.asarray(found, "float64") - expected) / (1 + np.abs(expected))))
        result[name] = max(result.get(name, 0.0), worst)

    for i, micro in enumerate(case.micro_batches()):
        step_number = reference.updates // 2 if case.step_number else None
        weight = 1.0 + i % 4 if case.weighted else 1.0
        if case.weighted:
            optimizer.weigh(weight)
        record = optimizer.step(micro.tensors, variables, step_number, return_metrics=True)
        if not reference.apply(micro.arrays, step_number, weight):
            continue
        compare("skipped", record.skipped, reference.skipped)
        compare("clipped", record.clipped, reference.clipped)
        compare("learning_rate", record.learning_rate, reference.learning_rate_used)
        if not reference.skipped:
            compare("update", record.update, reference.updates - 1)
            for name in ("gradient_norm", "parameter_norm", "update_norm", "weight_decay_loss"):
                compare(name, record[name], getattr(reference, name))
    compare("iterations", ops.convert_to_numpy(optimizer.iterations), reference.updates)
    for name, count in reference.counters.items():
        compare(name, optimizer.counters()[name], count)
    for variable in variables:
        compare("weights", ops.convert_to_numpy(variable), reference.w[variable.name])
    if case.options.get("use_ema"):
        optimizer.finalize_variable_values(variables)
        for variable in variables:
            compare("averages", ops.convert_to_numpy(variable), reference.average[variable.name])
    return result


def excess(found: dict[str, float], dtype: str) -> dict[str, float]:
    """What is beyond the limit."""
    assert found["iterations"] == 0 and "weights" in found  # the run got to its end
    return {name: worst for name, worst in found.items() if not worst <= LIMITS[dtype]}


@pytest.mark.parametrize(  # every fourth case: in float64 all of them run anyway
    "name", thinned(CASES, 4)
)
def test_200_micro_batches(name):
    assert excess(errors(CASES[name]), "float32") == {}


@pytest.mark.slow
@pytest.mark.parametrize("road", [road for road in ROADS if road != "fused"])
@pytest.mark.parametrize("name", ["adam, dropped micro-batches", "amsgrad, l2", "momentum, clipped micro-batches"])
def test_200_micro_batches_on_other_roads(name, road):
    assert excess(errors(CASES[name], road), "float32") == {}


def test_the_runs_do_what_they_are_for():
    """Every option acts: each case clips, skips and leaves out where it says so, and not always."""
    for case in CASES.values():
        clips = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if name in case.options]
        reference = Reference(problem.weights(), **case.options)
        absent = set()
        for micro in case.micro_batches():
            absent.update(path for path, g in micro.arrays.items() if g is None)
            reference.apply(micro.arrays)
        dropping = case.options.get("nonfinite") == "drop_micro_batch"
        assert (0 < reference.counters["clipped"] < MICRO_BATCHES) if clips else not reference.clipped
        assert (reference.counters["skipped"] > 0) == (case.broken > 0 and not dropping)
        assert (reference.counters["dropped"] > 0) == dropping
        assert reference.updates > MICRO_BATCHES // 6
        assert absent == ({"kernel", "bias", "embedding", "filters", "temperature"} if case.missing else set())

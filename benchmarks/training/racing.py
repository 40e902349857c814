"""Training to a target: compiled once for a contender and a workload, for all rates and seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import keras
import numpy as np

from benchmarks.training.contenders import Contender
from benchmarks.training.workloads import Workload

__all__ = ["Race", "Run"]

Tensors = list[Any]


@dataclass(frozen=True)
class Run:
    """One training.

    Args:
        curve: validation losses, every `Workload.every` updates, to the target or to the end.
        reached: updates to the target; `None` if it did not come there.
        seconds_per_update: median over the stretches between evaluations, these left out.
        seconds_per_evaluation: median; the same work for all contenders, so that it shows how fast the machine was.
    """

    rate: float
    seed: int
    curve: list[float]
    reached: int | None
    seconds_per_update: float
    seconds_per_evaluation: float


class Race:
    """A contender on a workload."""

    def __init__(self, contender: Contender, workload: Workload) -> None:
        self.contender, self.workload = contender, workload
        self.model, self.evaluate = prepared(workload)
        weights, _ = self._start(0)
        self.optimizer = self._optimizer(weights)
        self.stretch = jax.jit(self._stretch, donate_argnums=(0, 1))
        self.point = evaluation_point(self.optimizer)

    def run(self, rate: float, seed: int, steps: int | None = None) -> Run:
        """Train until the target, or for `steps` updates (default: the workload's)."""
        workload, data = self.workload, self.workload.data()
        weights, state = self._start(seed)
        batches, curve, times = workload.batches(seed), [], []
        for first in range(0, workload.steps if steps is None else steps, workload.every):
            rows = batches[first : first + workload.every]
            begun = time.perf_counter()
            weights, state = self.stretch(weights, state, rate, first, data.x[rows], data.y[rows])
            point = jax.block_until_ready(self.point(weights, state))
            between = time.perf_counter()
            curve.append(float(self.evaluate(point)))
            times.append(((between - begun) / workload.every, time.perf_counter() - between))
            if not math.isfinite(curve[-1]) or curve[-1] <= workload.target:
                break
        reached = len(curve) * workload.every if curve[-1] <= workload.target else None
        return Run(rate, seed, curve, reached, *np.median(times, axis=0).tolist())

    def _stretch(self, weights: Tensors, state: Tensors, rate: Any, first: Any, xs: Any, ys: Any) -> Any:
        """Updates one after the other."""
        place = [id(v) for v in self.optimizer.variables].index(id(self.optimizer._learning_rate))

        def update(carry: Any, batch: Any) -> Any:
            weights, state, t = carry
            state = list(state)
            state[place] = rate * jax.numpy.minimum((t + 1) / self.warmup, 1.0)
            grads = jax.grad(self._loss)(weights, *batch)
            weights, state = self.optimizer.stateless_apply(state, grads, weights)
            return (weights, state, t + 1), None

        (weights, state, _), _ = jax.lax.scan(update, (weights, state, first), (xs, ys))
        return weights, state

    @property
    def warmup(self) -> int:
        """Updates in which the rate rises."""
        return 1 if self.contender.has_schedule else self.workload.warmup

    def _loss(self, weights: Tensors, x: Any, y: Any) -> Any:
        return self.workload.loss(y, output(self.model, weights, x))

    def _start(self, seed: int) -> tuple[Tensors, Tensors]:
        """Weights of this seed, and the state of an optimizer that has not made an update."""
        weights = initial_weights(self.workload, seed)
        state = [jax.numpy.array(v.value) for v in self._optimizer(weights).variables]
        return [jax.numpy.array(w) for w in weights], state

    def _optimizer(self, weights: Sequence[np.ndarray]) -> Any:
        """A new one: some copy the weights that they find."""
        for variable, value in zip(self.model.trainable_variables, weights, strict=True):
            variable.assign(value)
        optimizer = self.contender.make(self.workload)
        optimizer.build(self.model.trainable_variables)
        return optimizer


@cache
def prepared(workload: Workload) -> tuple[keras.Model, Callable[[Tensors], Any]]:
    """A model, and its loss on the validation data for some weights."""
    model, data = workload.network(), workload.data()

    @jax.jit
    def evaluate(weights: Tensors, x: Any, y: Any) -> Any:
        return workload.loss(y, output(model, weights, x))

    return model, lambda weights: evaluate(weights, data.x_validation, data.y_validation)


def output(model: keras.Model, weights: Tensors, x: Any) -> Any:
    """Of a model without dropout or batch statistics: what it does not train stays as it is."""
    return model.stateless_call(weights, [v.value for v in model.non_trainable_variables], x)[0]


@cache
def initial_weights(workload: Workload, seed: int) -> list[np.ndarray]:
    """Of a new model."""
    keras.utils.set_random_seed(seed)
    return [np.array(v.value) for v in workload.network().trainable_variables]


def evaluation_point(optimizer: Any) -> Callable[[Tensors, Tensors], Tensors]:
    """(weights, state) -> the weights that are to be evaluated: others than those trained with Schedule-Free."""
    if not getattr(optimizer, "has_two_points", False):
        return lambda weights, state: weights
    rule, places = optimizer._config.rule, {id(v): i for i, v in enumerate(optimizer.variables)}
    slots = [[places[id(v)] for v in row] for row in optimizer._state.slots]

    @jax.jit
    def point(weights: Tensors, state: Tensors) -> Tensors:
        return [rule.evaluation(w, tuple(state[i] for i in row)) for w, row in zip(weights, slots, strict=True)]

    return point

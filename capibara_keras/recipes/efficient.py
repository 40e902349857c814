"""The best optimizer that fits into memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capibara_keras import catalog, errors
from capibara_keras.recipes import sizes
from capibara_keras.recipes.recipe import NO_DECAY, Choice, Recipe
from capibara_keras.rules import RULES, modified

__all__ = ["CANDIDATES", "Candidate", "Variables", "efficient"]

COMPUTE = ("low", "medium", "high")
PRIORITIES = ("memory", "speed", "quality")

Variables = Sequence[tuple[tuple[int, ...], str, bool]]
"""Shape, dtype, and whether it is trained, of each variable of a model."""


@dataclass(frozen=True)
class Candidate:
    """An algorithm and the precision of its state.

    Args:
        algorithm, state_precision: as in the configuration.
        compute: the least `compute_budget` that allows it.
        cost: time of an update against AdamW's, about; see the table of the docs on performance.
        rate: learning rate against AdamW's.
        source: where its quality was shown.
    """

    algorithm: str
    state_precision: str
    compute: str
    cost: float
    rate: float
    source: str

    def allowed(self, compute_budget: str) -> bool:
        """Whether a `compute_budget` allows it. Plain SGD is for the lowest alone: with more, others do better."""
        if self.algorithm == "sgd":
            return compute_budget == "low"
        return COMPUTE.index(self.compute) <= COMPUTE.index(compute_budget)

    def bytes(self, variables: Variables) -> int:
        """Of its state for a model."""
        rule = modified(RULES[self.algorithm](), state_precision=self.state_precision)
        return sum(catalog.state_bytes(rule, shape, dtype) for shape, dtype, trained in variables if trained)


CANDIDATES = (
    Candidate("soap", "float32", "high", 8.0, 1.0, "Vyas et al. 2024"),
    Candidate("muon", "float32", "high", 5.0, 1.0, "Jordan et al. 2024; Liu et al. 2025"),
    Candidate("adamw", "float32", "medium", 1.0, 1.0, "Loshchilov & Hutter 2019"),
    Candidate("adamw", "bfloat16", "medium", 1.4, 1.0, "stochastic rounding: Zamirai et al. 2020"),
    Candidate("adamw", "8bit", "medium", 2.0, 1.0, "Dettmers et al. 2022"),
    Candidate("lion", "float32", "low", 0.8, 0.2, "Chen et al. 2023, Section 5: rate 3 to 10 times smaller"),
    Candidate("lion", "bfloat16", "low", 1.0, 0.2, "Chen et al. 2023"),
    Candidate("lion", "8bit", "medium", 1.2, 0.2, "Chen et al. 2023; Dettmers et al. 2022"),
    Candidate("adafactor", "float32", "medium", 1.6, 1.0, "Shazeer & Stern 2018"),
    Candidate("sgd", "float32", "low", 0.5, 10.0, "Robbins & Monro 1951"),
)
"""From the best expected result to the least."""


def efficient(
    memory_budget: Any,
    compute_budget: str = "medium",
    prioritize: str = "quality",
    learning_rate: float = 1e-3,
    *,
    variables: Variables | None = None,
) -> Recipe:
    """The best algorithm and precision for a memory budget.

    Counted are parameters, gradients and the optimizer's state; not the activations, which depend on the batch.

    Args:
        memory_budget: bytes, or a text like "8GB".
        compute_budget: "low" (one moment at most), "medium" (also second moments and fewer bits), "high" (also
            matrix methods).
        prioritize: of those that fit "memory" takes the smallest state, "speed" the cheapest update, "quality" the best
            expected result.
        learning_rate: peak for AdamW; scaled for other algorithms.
        variables: of the model. Without, AdamW's cheapest precision is taken until the optimizer is built, and the
            choice is made then, from the variables that are trained.

    Raises:
        ConfigError: not even the smallest state fits; it says by how much.

    >>> efficient("1 MB", variables=[((300, 300), "float32", True)]).options["state_precision"]
    '8bit'
    """
    budget = sizes.memory("memory_budget", memory_budget)
    errors.choice("compute_budget", compute_budget, COMPUTE)
    errors.choice("prioritize", prioritize, PRIORITIES)
    rate = errors.number("learning_rate", learning_rate, 0, open_low=True)
    allowed = [c for c in CANDIDATES if c.allowed(compute_budget)]
    if variables is None:
        best, reason = _provisional(allowed, prioritize), "until the variables are known: decided when it is built"
    else:
        best, reason = _fitting(allowed, variables, budget, prioritize)
    choices = [
        Choice("algorithm", best.algorithm, reason, best.source),
        Choice("state_precision", best.state_precision, reason, best.source),
        Choice("learning_rate", float(f"{rate * best.rate:.3g}"), f"{best.rate:g} times AdamW's", best.source),
        Choice("weight_decay", 0.01, "decoupled", "Loshchilov & Hutter 2019"),
        Choice("weight_decay_exclude", list(NO_DECAY), "decay is for matrices"),
        Choice("global_clipnorm", 1.0, "limits what one bad batch can do", "Pascanu et al. 2013"),
    ]
    arguments = {
        "memory_budget": memory_budget,
        "compute_budget": compute_budget,
        "prioritize": prioritize,
        "learning_rate": learning_rate,
    }
    return Recipe("efficient", arguments, tuple(choices))


def _provisional(allowed: Sequence[Candidate], prioritize: str) -> Candidate:
    """What would be taken for one large matrix in a budget without end."""
    return _best(allowed, {c: c.bytes([((1024, 1024), "float32", True)]) for c in allowed}, prioritize)


def _best(fitting: Sequence[Candidate], needs: dict[Candidate, int], prioritize: str) -> Candidate:
    if prioritize == "memory":
        return min(fitting, key=lambda c: needs[c])
    return min(fitting, key=lambda c: c.cost) if prioritize == "speed" else fitting[0]


def _fitting(allowed: Sequence[Candidate], variables: Variables, budget: int, prioritize: str) -> tuple[Candidate, str]:
    sized = [(math.prod(shape) * catalog.BYTES.get(dtype, 4), trained) for shape, dtype, trained in variables]
    weights, gradients = sum(size for size, _ in sized), sum(size for size, trained in sized if trained)
    needs = {c: c.bytes(variables) for c in allowed}
    left = budget - weights - gradients
    fitting = [c for c in allowed if needs[c] <= left]
    known = f"{megabytes(weights)} of parameters and {megabytes(gradients)} of gradients"
    if not fitting:
        least = min(allowed, key=lambda c: needs[c])
        raise errors.ConfigError(
            f"memory_budget: {megabytes(budget)} do not hold {known}, and {megabytes(needs[least])} of "
            f"state for {least.algorithm} ({least.state_precision}), the smallest that compute_budget allows: "
            f"{megabytes(needs[least] - left)} too much. Give at least {megabytes(budget + needs[least] - left)}, or "
            "train fewer variables"
        )
    best = _best(fitting, needs, prioritize)
    others = ", ".join(f"{c.algorithm} {c.state_precision} {megabytes(needs[c])}" for c in allowed if c is not best)
    reason = f"{megabytes(needs[best])} of state fit beside {known} into {megabytes(budget)}; first by {prioritize}"
    return best, f"{reason}. Others: {others}"


def megabytes(size: float) -> str:
    """Bytes for people to read.

    >>> megabytes(1_500_000)
    '1.5 MB'
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(size) >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"

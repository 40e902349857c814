"""A gradient that is not finite: nothing may change, bit for bit."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import capibara_keras as ck
from tests import problem

pytestmark = pytest.mark.filterwarnings("ignore:SGD. nesterov together with dampening")

BAD = (np.nan, np.inf, -np.inf)
REPORTS = ("counters", "statistics", "variable_norms")
"""State that tells what happened; all other state must stay."""

RULES = {
    "adam": {"algorithm": "adam"},
    "amsgrad": {"algorithm": "adam", "amsgrad": True},
    "adamw": {"algorithm": "adamw", "weight_decay": 0.1},
    "sgd": {"algorithm": "sgd", "weight_decay": 0.1, "weight_decay_mode": "l2"},
    "nesterov": {
        "algorithm": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "dampening": 0.1,
        "weight_decay": 0.1,
    },
}
CLIPS = {
    "none": {},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.1},
    "global": {"global_clipnorm": 1.0},
}
EMA = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 2}
CONSTRAINTS = {"kernel": keras.constraints.UnitNorm(), "bias": keras.constraints.NonNeg()}
"""The first moves a weight a little even where it holds already: applying it again would show."""


class Run:
    """An optimizer with some updates behind it, the last of which left -0 in a weight, as pruning does."""

    def __init__(self, **options: Any) -> None:
        self.variables = problem.variables(problem.weights(), CONSTRAINTS)
        self.optimizer = ck.Optimizer(learning_rate=0.05, **options)
        self.window = options.get("gradient_accumulation_steps") or 1
        for micro in problem.micro_batches(3 * self.window):
            self.apply(micro.arrays)
        filters = self.variables[list(problem.SHAPES).index("filters")]
        filters.assign(np.copysign(np.where(np.abs(filters) < 0.5, 0.0, filters), filters))

    def apply(self, arrays: dict[str, np.ndarray]) -> None:
        self.optimizer.apply([ops.convert_to_tensor(g, "float32") for g in arrays.values()], self.variables)

    def apply_window(self, bad: float | None = None, path: str = "", at: int = 0, micro_step: int = 0) -> None:
        """A window of random gradients, with `bad` as entry `at` of one of them."""
        for step, micro in enumerate(problem.micro_batches(self.window, seed=5)):
            arrays = {name: np.array(g, "float32") for name, g in micro.arrays.items()}
            if bad is not None and step == micro_step:
                arrays[path].reshape(-1)[at] = bad
            self.apply(arrays)

    def state(self) -> list[tuple[str, bytes]]:
        """The bits of the weights and of all state but reports."""
        state = [v for v in self.optimizer.variables if v.name not in REPORTS]
        return [(v.name, ops.convert_to_numpy(v).tobytes()) for v in (*self.variables, *state)]

    def everything(self) -> list[tuple[keras.Variable, np.ndarray]]:
        """All variables and their values, to be assigned again."""
        return [(v, np.array(ops.convert_to_numpy(v))) for v in (*self.variables, *self.optimizer.variables)]


@functools.cache
def run_of(rule: str, clip: str, accumulation: int | None, jit_compile: bool) -> Run:
    """One run per kind, so that nothing is compiled twice."""
    options = RULES[rule] | CLIPS[clip] | EMA
    return Run(**options, gradient_accumulation_steps=accumulation, jit_compile=jit_compile)


def places(rule: str, clip: str) -> list[tuple[float, str, int, int]]:
    """Every bad value in every variable, at an entry and a micro-step that vary from kind to kind."""
    rng = np.random.default_rng([list(RULES).index(rule), list(CLIPS).index(clip)])
    sizes = {path: int(np.prod(shape)) for path, shape in problem.SHAPES.items()}
    return [(bad, path, rng.integers(size), rng.integers(2)) for bad in BAD for path, size in sizes.items()]


def kinds() -> list[Any]:
    """Every rule with every clip policy, compiled and not; all but one policy for each rule are slow."""
    result = []
    for i, rule in enumerate(RULES):
        for j, clip in enumerate(CLIPS):
            marks = () if i % len(CLIPS) == j else pytest.mark.slow
            result.append(pytest.param(rule, clip, True, id=f"{rule}, {clip}", marks=marks))
            result.append(pytest.param(rule, clip, False, id=f"{rule}, {clip}, no jit", marks=marks))
    return result


@pytest.mark.parametrize(("rule", "clip", "jit_compile"), kinds())
def test_a_bad_window_changes_nothing(rule, clip, jit_compile):
    run = run_of(rule, clip, 2, jit_compile)
    before, skipped = run.state(), run.optimizer.counters()["skipped"]
    assert any(np.signbit(x) and x == 0 for v in run.variables for x in ops.convert_to_numpy(v).reshape(-1))
    for bad, path, at, micro_step in places(rule, clip):
        run.apply_window(bad, path, at, micro_step)
        assert run.state() == before, (bad, path, at, micro_step)
        record = run.optimizer.statistics()
        assert record.skipped and not record.clipped and not np.isfinite(record.gradient_norm)
    assert run.optimizer.counters()["skipped"] == skipped + len(BAD) * len(problem.SHAPES)

    # and what follows is what would have followed
    saved = run.everything()
    run.apply_window()
    expected = run.state()
    assert expected != before
    for variable, value in saved:
        variable.assign(value)
    run.apply_window(np.nan, "kernel")
    run.apply_window()
    assert run.state() == expected


@settings(deadline=None, max_examples=100)
@given(
    rule=st.sampled_from(list(RULES)),
    bad=st.sampled_from(BAD),
    place=st.sampled_from([(path, at) for path, shape in problem.SHAPES.items() for at in range(int(np.prod(shape)))]),
)
def test_a_bad_gradient_changes_nothing_without_accumulation(rule, bad, place):
    run = run_of(rule, "global", None, True)
    before = run.state()
    run.apply_window(bad, *place)
    assert run.state() == before
    assert run.optimizer.statistics().skipped


def test_a_bad_micro_batch_leaves_an_open_window_as_it_is():
    """Before the window is full, a bad micro-batch is only added; the decision comes with the update."""
    run = Run(algorithm="adam", gradient_accumulation_steps=3)
    weights = [ops.convert_to_numpy(v).tobytes() for v in run.variables]
    (micro,) = problem.micro_batches(1)
    run.apply({path: np.full_like(g, np.nan) for path, g in micro.arrays.items()})
    run.apply(micro.arrays)
    assert [ops.convert_to_numpy(v).tobytes() for v in run.variables] == weights
    assert run.optimizer.counters()["skipped"] == 0
    run.apply(micro.arrays)
    assert run.optimizer.counters()["skipped"] == 1
    updates = int(run.optimizer.iterations)
    for _ in range(3):
        run.apply(micro.arrays)
    assert int(run.optimizer.iterations) == updates + 1  # the next window is a full one again
    assert all(np.isfinite(ops.convert_to_numpy(v)).all() for v in run.variables)


def test_a_sum_that_overflows_is_not_finite():
    """Two finite micro-batches whose sum is not."""
    w = keras.Variable([1.0])
    optimizer = ck.Optimizer("sgd", gradient_accumulation_steps=2)
    for _ in range(2):
        optimizer.apply([ops.array([3e38])], [w])
    assert w.numpy().tolist() == [1.0] and optimizer.counters()["skipped"] == 1


def test_the_first_update_after_a_skipped_one_is_the_first():
    """Bias correction, dampening and the average count updates: a skip before them leaves no trace."""
    for rule in RULES.values():
        weights = []
        for gradients in ([np.nan, 2.0, -1.0], [2.0, -1.0]):
            w = keras.Variable([1.0, -2.0])
            optimizer = ck.Optimizer(**rule, **EMA, jit_compile=False)
            for g in gradients:
                optimizer.apply([ops.array([g, 1.0])], [w])
            weights.append(w.numpy().tobytes())
        assert weights[0] == weights[1]


def test_raise_names_the_variables_and_changes_nothing():
    run = Run(algorithm="adam", nonfinite="raise")
    before = run.state()
    with pytest.raises(FloatingPointError, match=r"not finite in filters;"):
        run.apply_window(np.inf, "filters", 3)
    assert run.state() == before
    run.apply_window()
    assert run.state() != before


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_raise_does_not_name_a_variable_without_gradient():
    variables = [keras.Variable([1.0], name=name) for name in ("bad", "absent", "good")]
    optimizer = ck.Optimizer("sgd", nonfinite="raise")
    with pytest.raises(FloatingPointError, match=r"not finite in bad;"):
        optimizer.apply([ops.array([np.nan]), None, ops.array([1.0])], variables)


def test_raise_once_per_window():
    """The micro-batches after a bad window open a new one: they have done nothing wrong."""
    w = keras.Variable([1.0])
    optimizer = ck.Optimizer("sgd", learning_rate=1.0, nonfinite="raise", gradient_accumulation_steps=2)
    raised = []
    for i, g in enumerate([np.nan, 1.0, 1.0, 1.0, 1.0, np.inf]):
        try:
            optimizer.apply([ops.array([g])], [w])
        except FloatingPointError:
            raised.append(i)
    assert raised == [1, 5]
    assert w.numpy().tolist() == [0.0]


def test_propagate_lets_it_through():
    w = keras.Variable([1.0, 2.0])
    optimizer = ck.Optimizer("sgd", nonfinite="propagate")
    optimizer.apply([ops.array([np.nan, 1.0])], [w])
    assert np.isnan(w.numpy()).tolist() == [True, False]
    assert int(optimizer.iterations) == 1 and optimizer.counters()["skipped"] == 0

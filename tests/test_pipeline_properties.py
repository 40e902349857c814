"""What must hold for any gradient: of clipping, scaling, accumulation, missing and sparse gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import ops

import capibara_keras as ck
from tests.reference import Reference, dense, norm

pytestmark = [
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
    pytest.mark.filterwarnings("ignore:SGD. nesterov together with dampening"),
]

SHAPES = {"kernel": (3, 2), "bias": (2,), "gain": ()}
SIZES = [int(np.prod(shape)) for shape in SHAPES.values()]
RULES = {
    "adam": {"algorithm": "adam", "learning_rate": 0.05},
    "amsgrad": {"algorithm": "adam", "amsgrad": True, "learning_rate": 0.05},
    "adamw": {"algorithm": "adamw", "weight_decay": 0.1, "learning_rate": 0.05},
    "sgd": {"algorithm": "sgd", "learning_rate": 0.05},
    "nesterov": {
        "algorithm": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "dampening": 0.1,
        "learning_rate": 0.05,
    },
}
CLIPS = {
    "none": {},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.1},
    "global": {"global_clipnorm": 1.0},
}
each_rule = pytest.mark.parametrize("rule", RULES)
each_rule_and_each_clip = pytest.mark.parametrize(
    ("rule", "clipping"),
    [
        ("adam", "global"),
        ("amsgrad", "clipnorm"),
        ("adamw", "clipvalue"),
        ("sgd", "none"),
        ("nesterov", "global"),
    ],
)

quick = settings(deadline=None, max_examples=60)
entries = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
gradients = st.lists(entries, min_size=sum(SIZES), max_size=sum(SIZES)).map(
    lambda flat: [
        np.array(part, "float32").reshape(shape)
        for part, shape in zip(np.split(flat, np.cumsum(SIZES)[:-1]), SHAPES.values(), strict=True)
    ]
)


class Run:
    """An optimizer and its variables, which can be put back to where they were."""

    def __init__(self, *, start: float = 1.0, constraints: dict[str, Any] | None = None, **options: Any) -> None:
        rng = np.random.default_rng(0)
        self.variables = []
        for path, shape in SHAPES.items():
            self.variables.append(keras.Variable(start * rng.normal(size=shape), dtype="float32", name=path))
            self.variables[-1].constraint = (constraints or {}).get(path)
        self.optimizer = ck.Optimizer(**options)
        self.optimizer.build(self.variables)
        self.first = [np.array(ops.convert_to_numpy(v)) for v in self._all()]

    def _all(self) -> list[keras.Variable]:
        return [*self.variables, *self.optimizer.variables]

    def reset(self) -> Run:
        for v, value in zip(self._all(), self.first, strict=True):
            v.assign(value)
        return self

    def apply(self, *micro_batches: Sequence[Any]) -> Run:
        for grads in micro_batches:
            self.optimizer.apply([g if g is None else tf.convert_to_tensor(g) for g in grads], self.variables)
        return self

    def weights(self) -> list[np.ndarray]:
        return [np.array(ops.convert_to_numpy(v)) for v in self.variables]

    def bits(self, path: str | None = None) -> list[bytes]:
        """The weights' bits, or those of one variable and its state."""
        chosen = self.variables
        if path is not None:
            chosen = [v for v in self._all() if v.name == path or v.name.startswith(f"{path}_")]
        return [ops.convert_to_numpy(v).tobytes() for v in chosen]


@functools.cache
def run_of(**options: Any) -> Run:
    """One run per set of options: hypothesis resets it, and nothing is compiled twice."""
    return Run(**options)


def clip(grads: Sequence[np.ndarray], **options: Any) -> tuple[list[np.ndarray], bool]:
    """What clipping leaves of a gradient: from 0 with rate 1, the negated weights; and the record's flag."""
    run = run_of(start=0.0, algorithm="sgd", learning_rate=1.0, **options).reset().apply(grads)
    return [-w for w in run.weights()], run.optimizer.statistics().clipped


def random_gradients(seed: int, count: int = 6) -> list[list[np.ndarray]]:
    """Some gradients of ordinary size."""
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape).astype("float32") for shape in SHAPES.values()] for _ in range(count)]


# Clipping. Norms and factors are rounded a few times, each by at most 6e-8: 1e-6 relative is far beyond that.


@quick
@given(gradients)
def test_global_norm_keeps_the_direction_and_the_limit(grads):
    found, clipped = clip(grads, global_clipnorm=2.0)
    before, factor = norm(*grads), min(1.0, 2.0 / max(norm(*grads), 1e-30))
    for x, g in zip(found, grads, strict=True):
        np.testing.assert_allclose(x, factor * g.astype("float64"), rtol=1e-6, atol=1e-37)
    assert norm(*found) <= 2.0 * (1 + 1e-6)
    if before < 2.0 * (1 - 1e-6):
        assert all(np.array_equal(x, g) for x, g in zip(found, grads, strict=True)) and not clipped
    if before > 2.0 * (1 + 1e-6):
        assert clipped


@quick
@given(gradients)
def test_norm_by_variable_keeps_each_direction_and_limit(grads):
    found, clipped = clip(grads, clipnorm=2.0)
    for x, g in zip(found, grads, strict=True):
        factor = min(1.0, 2.0 / max(norm(g), 1e-30))
        np.testing.assert_allclose(x, factor * g.astype("float64"), rtol=1e-6, atol=1e-37)
        assert norm(x) <= 2.0 * (1 + 1e-6)
        if norm(g) < 2.0 * (1 - 1e-6):
            assert np.array_equal(x, g)
    largest = max(norm(g) for g in grads)
    assert clipped == (largest > 2.0) or abs(largest - 2.0) < 1e-5


@quick
@given(gradients)
def test_value_limits_each_entry_and_leaves_the_rest(grads):
    found, clipped = clip(grads, clipvalue=2.0)
    assert all(np.array_equal(x, np.clip(g, -2.0, 2.0)) for x, g in zip(found, grads, strict=True))
    assert clipped == any((np.abs(g) > 2.0).any() for g in grads)


@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_a_gradient_at_the_limit_is_not_clipped(name):
    w = keras.Variable([0.0, 0.0])
    optimizer = ck.Optimizer("sgd", learning_rate=1.0, **{name: 5.0})
    optimizer.apply([ops.array([0.0, 5.0])], [w])
    assert w.numpy().tolist() == [0.0, -5.0] and not optimizer.statistics().clipped


@pytest.mark.parametrize(
    "shape", [(4096,), (5000,), (64, 64), (3, 3, 32, 32), (1024, 4), (41, 100), (1,), (0, 3)], ids=str
)
def test_the_norm_of_variables_of_any_size(shape):
    """Large ones are summed another way; 1e-6 is what float32 allows for 10^4 random terms."""
    rng = np.random.default_rng(0)
    g, w = rng.normal(size=(2, *shape)).astype("float32")
    optimizer = ck.Optimizer("sgd", learning_rate=0.5)
    small = np.array([3.0], "float32")
    record = optimizer.step(
        [ops.array(g), ops.array(small)], [keras.Variable(w), keras.Variable([0.0])], return_metrics=True
    )
    assert record.gradient_norm == pytest.approx(norm(g, small), rel=1e-6)
    assert record.parameter_norm == pytest.approx(norm(w), rel=1e-6)
    assert record.update_norm == pytest.approx(0.5 * norm(g, small), rel=1e-6)


# Scaling. A power of two only changes exponents, so that these hold bit for bit.


@pytest.mark.parametrize("rule", ["adam", *(pytest.param(r, marks=pytest.mark.slow) for r in ("adamw", "nesterov"))])
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-10, 10))
def test_loss_scale_changes_nothing(rule, seed, exponent):
    scale = 2.0**exponent
    micro_batches = random_gradients(seed, 4)
    options = RULES[rule] | {"global_clipnorm": 1.0, "gradient_accumulation_steps": 2}
    plain = run_of(**options).reset().apply(*micro_batches).bits()
    scaled = run_of(**options, loss_scale_factor=1024.0).reset()
    assert scaled.apply(*[[1024 * g for g in grads] for grads in micro_batches]).bits() == plain
    if rule != "adamw":  # with limit and decay in units of the weights, only the gradient's direction counts
        factor = np.float32(scale)
        always = run_of(**RULES[rule], global_clipnorm=1e-3).reset().apply(*micro_batches).bits()
        assert (
            run_of(**RULES[rule], global_clipnorm=1e-3)
            .reset()
            .apply(*[[factor * g for g in grads] for grads in micro_batches])
            .bits()
            == always
        )


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-10, 10), amsgrad=st.booleans())
def test_adam_does_not_see_the_size_of_gradients(seed, exponent, amsgrad):
    """With an epsilon that is nothing beside them."""
    micro_batches = random_gradients(seed)
    run = run_of(algorithm="adam", learning_rate=0.05, epsilon=1e-30, amsgrad=amsgrad)
    expected = run.reset().apply(*micro_batches).bits()
    factor = np.float32(2.0**exponent)
    assert run.reset().apply(*[[factor * g for g in grads] for grads in micro_batches]).bits() == expected


@each_rule
def test_maximize_is_minimizing_the_negative(rule):
    """Decay included: it shrinks the weights in both directions."""
    micro_batches = random_gradients(1)
    options = RULES[rule] | {"weight_decay": 0.2, "global_clipnorm": 1.0, "jit_compile": False}
    descent = Run(**options).apply(*micro_batches).bits()
    ascent = Run(**options, maximize=True).apply(*[[-g for g in grads] for grads in micro_batches]).bits()
    assert ascent == descent


# Accumulation.


@each_rule_and_each_clip
def test_micro_batches_equal_one_big_batch(rule, clipping):
    """Their mean, that is: in float32 the two sums differ by a few roundings, 1e-7 of a weight each."""
    options = RULES[rule] | CLIPS[clipping] | {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 10, 0.0)
    options |= {"learning_rate": schedule, "jit_compile": False}
    micro_batches = random_gradients(0, 18)
    windows = [micro_batches[i : i + 3] for i in range(0, 18, 3)]
    big = Run(**options).apply(*[[np.mean(gs, axis=0) for gs in zip(*window, strict=True)] for window in windows])
    small = Run(**options, gradient_accumulation_steps=3).apply(*micro_batches)
    for found, expected in zip(small.weights(), big.weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert int(small.optimizer.iterations) == int(big.optimizer.iterations) == 6


@pytest.mark.parametrize("scheduled", ["keras", "own"])
def test_the_schedule_counts_updates(scheduled):
    """Linear from 1 to 0 over 100: after 40 micro-batches, 4 per update, 0.9 is next, and 0.91 was last."""
    options = {"learning_rate": keras.optimizers.schedules.PolynomialDecay(1.0, 100, 0.0)}
    if scheduled == "own":
        options = {"learning_rate": 1.0, "scheduler_type": "linear_with_warmup", "training_steps": 100}
    w = keras.Variable([0.0])
    optimizer = ck.Optimizer("sgd", gradient_accumulation_steps=4, **options)
    for _ in range(40):
        optimizer.apply([ops.array([1.0])], [w])
    assert float(optimizer.learning_rate) == pytest.approx(0.9, abs=1e-6)
    assert optimizer.statistics().learning_rate == pytest.approx(0.91, abs=1e-6)
    assert int(optimizer.iterations) == 10 and optimizer.counters()["micro_steps"] == 40
    assert float(w[0]) == pytest.approx(-sum(1 - t / 100 for t in range(10)), abs=1e-5)


# Missing gradients.

CONSTRAINTS = {"bias": keras.constraints.UnitNorm()}
"""Applied again, it moves a weight a little even where it holds already."""


def without(path: str, grads: Iterable[Any]) -> list[Any]:
    """Gradients with that of one variable left out."""
    return [None if name == path else g for name, g in zip(SHAPES, grads, strict=True)]


@pytest.mark.parametrize(
    ("rule", "jit_compile", "steps"),
    [(rule, False, steps) for rule in RULES for steps in (None, 3)] + [("amsgrad", True, 3), ("nesterov", True, 3)],
)
def test_no_gradient_leaves_a_variable_and_its_state(rule, jit_compile, steps):
    """In a whole window, where there are windows; decay, momentum and constraint rest too."""
    options = RULES[rule] | {"weight_decay": 0.1, "global_clipnorm": 0.5, "jit_compile": jit_compile}
    run = Run(constraints=CONSTRAINTS, **options, gradient_accumulation_steps=steps)
    micro_batches = random_gradients(0, 2 * (steps or 1))
    run.apply(*micro_batches)
    run.variables[1].assign([-0.0, 0.5])  # the sign of zero is a bit too
    before, others = run.bits("bias"), run.bits("kernel")
    run.apply(*[without("bias", grads) for grads in micro_batches])
    assert run.bits("bias") == before
    assert len(before) >= 1 + {"adam": 2, "amsgrad": 3, "adamw": 2, "sgd": 0, "nesterov": 1}[rule]
    assert all(a != b for a, b in zip(run.bits("kernel")[:1], others[:1], strict=True))


@each_rule
def test_no_gradient_in_part_of_a_window_counts_as_zero(rule):
    """At the first, a middle or the last micro-step: what the others brought is kept, and divided by all."""
    options = RULES[rule] | {"gradient_accumulation_steps": 3, "jit_compile": False}
    zeros, gaps = Run(**options), Run(**options)
    for missing in ([2], [0], [1, 2], [0, 2], [1]):
        for i, grads in enumerate(random_gradients(7, 3)):
            gap = i in missing
            zeros.apply([0 * g if gap and name == "bias" else g for name, g in zip(SHAPES, grads, strict=True)])
            gaps.apply(without("bias", grads) if gap else grads)
        assert gaps.bits() == zeros.bits()


def test_the_average_goes_on_without_a_gradient():
    """It averages over updates, and in an update without gradient the weight is what it was."""
    run = Run(algorithm="sgd", learning_rate=1.0, use_ema=True, ema_momentum=0.5)
    first, second = random_gradients(0, 2)
    run.apply(first, second)
    w1, w2 = run.first[1] - first[1], run.first[1] - first[1] - second[1]
    run.apply(without("bias", first))
    run.optimizer.finalize_variable_values(run.variables)
    np.testing.assert_allclose(run.weights()[1], 0.5 * (0.5 * w1 + 0.5 * w2) + 0.5 * w2, rtol=0, atol=1e-6)


def test_a_subset_of_the_variables_is_the_others_without_gradient():
    grads = random_gradients(0, 1)[0]
    part, whole = Run(**RULES["adamw"]), Run(**RULES["adamw"])
    part.optimizer.apply([ops.array(grads[0])], part.variables[:1])
    whole.apply([grads[0], None, None])
    assert part.bits() == whole.bits() != Run(**RULES["adamw"]).bits()


def test_no_gradient_at_all_is_an_error():
    run = Run(**RULES["sgd"])
    with pytest.raises(ck.ConfigError, match="every gradient is None"):
        run.apply([None, None, None])


# Sparse gradients.


@functools.cache
def embeddings(rule: str, steps: int | None) -> tuple[list[np.ndarray], keras.Variable, ck.Optimizer]:
    """An embedding and its optimizer, with their first state."""
    w = keras.Variable(np.random.default_rng(0).normal(size=(6, 2)), dtype="float32")
    optimizer = ck.Optimizer(**RULES[rule], global_clipnorm=2.0, gradient_accumulation_steps=steps)
    optimizer.build([w])
    return [np.array(ops.convert_to_numpy(v)) for v in (w, *optimizer.variables)], w, optimizer


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("rule", ["adam", "nesterov"])
@settings(deadline=None, max_examples=20)
@given(tokens=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=9), min_size=2, max_size=4))
@example(tokens=[[0, 0, 2]] * 4)
def test_sparse_gradients_equal_dense_ones(rule, steps, tokens):
    """Rows with equal indices add up, in any order: a rounding or two apart, hence 1e-6."""
    rng = np.random.default_rng(len(tokens))
    batches = [(np.array(indices), rng.normal(size=(len(indices), 2)).astype("float32")) for indices in tokens]
    batches *= 2  # whole windows
    first, w, optimizer = embeddings(rule, steps)
    results = []
    for convert in (
        lambda indices, rows: tf.IndexedSlices(rows, indices, (6, 2)),
        lambda indices, rows: tf.constant(dense(indices, rows, (6, 2)), "float32"),
    ):
        for v, value in zip((w, *optimizer.variables), first, strict=True):
            v.assign(value)
        for indices, rows in batches:
            optimizer.apply([convert(indices, rows)], [w])
        results.append(np.array(w))
    np.testing.assert_allclose(*results, rtol=0, atol=1e-6)
    assert not np.array_equal(results[0], first[0])


# Roads that must agree.


@each_rule_and_each_clip
def test_one_by_one_and_without_jit_agree(rule, clipping):
    """The same formula in three ways: roundings apart, 1e-7 of a weight each."""
    options = RULES[rule] | CLIPS[clipping] | {"weight_decay": 0.1, "use_ema": True, "ema_overwrite_frequency": 3}
    micro_batches = random_gradients(3, 10)
    roads: list[dict[str, Any]] = [{}, {"foreach": False}, {"jit_compile": False}]
    fused, *others = [Run(**options, **road).apply(*micro_batches).weights() for road in roads]
    for other in others:
        for found, expected in zip(other, fused, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# Records.


def test_the_record_of_a_step():
    """By hand: w = (3, 4) decays, b = 12 does not; g = (0, 6), 8."""
    w, b = keras.Variable([3.0, 4.0], name="w"), keras.Variable(12.0, name="b")
    optimizer = ck.Optimizer(
        "sgd", learning_rate=0.5, weight_decay=0.1, weight_decay_exclude=["b"], global_clipnorm=5.0
    )
    record = optimizer.step([ops.array([0.0, 6.0]), ops.array(8.0)], [w, b], return_metrics=True)
    assert record.gradient_norm == pytest.approx(10.0)
    assert record.parameter_norm == pytest.approx(13.0)
    assert record.weight_decay_loss == pytest.approx(0.5 * 0.1 * 25.0)
    # changes: -0.5 · (0, 3) - 0.5 · 0.1 · (3, 4) and -0.5 · 4
    assert record.update_norm == pytest.approx(np.sqrt(0.15**2 + 1.7**2 + 2.0**2))
    assert record.clipped and not record.skipped and record.update == 0
    assert record.learning_rate == pytest.approx(0.5)
    np.testing.assert_allclose(w, [2.85, 2.3], atol=1e-6)
    assert float(b) == pytest.approx(10.0)


def test_the_record_of_a_skipped_step():
    run = Run(**RULES["adamw"])
    run.apply(*random_gradients(0, 2))
    bad = [g * np.float32(np.inf) for g in random_gradients(0, 1)[0]]
    record = run.optimizer.step([ops.array(g) for g in bad], run.variables, return_metrics=True)
    assert record.skipped and record.update == 2 and record.update_norm == 0.0
    assert record.parameter_norm == pytest.approx(norm(*run.weights()), rel=1e-6)


def test_without_measuring_norms_are_unknown():
    run = Run(**RULES["adamw"]).apply(*random_gradients(0, 1))
    record = run.optimizer.statistics()
    assert np.isnan([record.parameter_norm, record.update_norm, record.weight_decay_loss]).all()
    assert np.isfinite([record.gradient_norm, record.learning_rate]).all()


def test_a_call_that_only_adds_to_the_window_returns_the_last_record():
    run = Run(algorithm="sgd", gradient_accumulation_steps=2)
    first, *_, last = [
        run.optimizer.step([ops.array(g) for g in grads], run.variables, return_metrics=True)
        for grads in random_gradients(0, 3)
    ]
    assert np.isnan(first.gradient_norm)
    mean = [(a + b) / 2 for a, b in zip(*random_gradients(0, 2), strict=True)]
    assert last.update == 0 and last.gradient_norm == pytest.approx(norm(*mean), rel=1e-6)


@pytest.mark.parametrize("road", ["eager", "function"])
def test_step_number_moves_the_schedule_and_nothing_else(road):
    """Step 10,000 of a linear decay from 1 over 20,000 has rate 0.5; Adam's first step is then 0.5 sign(g).

    Bias correction at t = 10,001 with empty moments would make it 0.1 / sqrt(0.001) = 3.2 times as large.
    """
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 20_000, 0.0)
    w = keras.Variable([0.0, 0.0])
    optimizer = ck.Optimizer("adam", learning_rate=schedule)
    optimizer.build([w])

    def step(g: Any, number: int | None) -> None:
        optimizer.step([g], [w], step_number=number)

    call: Callable[..., None] = step if road == "eager" else tf.function(step, autograph=False)
    call(ops.array([2.0, -0.01]), 10_000)
    np.testing.assert_allclose(w, [-0.5, 0.5], atol=1e-5)
    assert optimizer.statistics().learning_rate == pytest.approx(0.5)
    assert int(optimizer.iterations) == 1
    call(ops.array([2.0, -0.01]), None)  # from the count of updates again: 1 - 1/20,000
    assert optimizer.statistics().learning_rate == pytest.approx(1 - 1 / 20_000)
    reference = Reference({"w": np.zeros(2)}, algorithm="adam", schedule=lambda t: 1 - t / 20_000)
    for number in (10_000, None):
        reference.apply({"w": np.array([2.0, -0.01])}, number)
    np.testing.assert_allclose(w, reference.w["w"], atol=1e-5)

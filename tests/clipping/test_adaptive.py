"""The limit that is a percentile of recent norms."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from tests.clipping.common import SEED, adaptive, norms, sgd, step
from tests.models import regression, regressor, values


def gradients(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradients with norms over two orders of magnitude and slow waves; every 17th is not finite; and their norms."""
    rng = np.random.default_rng(0)
    size = 10 ** rng.uniform(-1, 1, count) * (1.5 + np.sin(np.arange(count) / 200))
    g = (size[:, None] * rng.normal(size=(count, 5))).astype("float32")
    g[8::17, 2] = rng.choice([np.nan, np.inf, -np.inf], len(g[8::17]))
    return g, np.sqrt(np.sum(g.astype("float64") ** 2, axis=1))


def thresholds(sizes: np.ndarray, percentile: float, length: int) -> np.ndarray:
    """numpy.percentile of the last finite norms, the current one included."""
    result, recent = [], []
    for x in sizes:
        recent = [*recent, x][-length:] if np.isfinite(x) else recent
        result.append(np.percentile(recent, percentile))
    return np.array(result)


def test_the_threshold_is_numpys_percentile_at_every_step() -> None:
    """3,000 updates: the ring wraps around, and gradients that are not finite leave no trace in it."""
    grads, sizes = gradients(3000)
    expected = thresholds(sizes, 10, 1000)
    w, found = keras.Variable(np.zeros(5, "float32")), []
    optimizer = sgd(adaptive(percentile=10, history_length=1000), jit_compile=True)
    for g in grads:
        optimizer.apply([ops.convert_to_tensor(g)], [w])
        found.append(optimizer.statistics().clip_threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    finite = np.isfinite(sizes)
    assert optimizer.counters()["skipped"] == np.sum(~finite) > 100
    clipped = np.sum(sizes[finite] > expected[finite])
    assert abs(optimizer.counters()["clipped"] - clipped) <= 5  # a norm at the threshold may fall either way


@pytest.mark.parametrize(("percentile", "length", "jit_compile"), [(10, 1000, False), (37.5, 17, True)])
def test_the_gradient_is_scaled_to_the_threshold_at_every_step(
    percentile: float, length: int, jit_compile: bool
) -> None:
    """In a loop that TensorFlow runs: what the weight moves by is the clipped gradient."""
    grads, sizes = gradients(3000)
    w = keras.Variable(np.zeros(5, "float32"))
    optimizer = sgd(adaptive(percentile=percentile, history_length=length), jit_compile=jit_compile)
    optimizer.build([w])

    @tf.function
    def loop(grads: tf.Tensor) -> tf.Tensor:
        steps = tf.TensorArray(tf.float32, len(grads))
        for i in tf.range(len(grads)):
            w.assign(tf.zeros(5))
            optimizer.apply([grads[i]], [w])
            steps = steps.write(i, -w.value)
        return steps.stack()

    steps = loop(tf.constant(grads)).numpy()
    finite = np.isfinite(sizes)
    assert (steps[~finite] == 0).all()
    factor = np.minimum(1, thresholds(sizes, percentile, length)[finite] / sizes[finite])
    expected = grads[finite] * factor[:, None]
    np.testing.assert_allclose(steps[finite], expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    found = np.sqrt(np.sum(steps[finite].astype("float64") ** 2, axis=1))
    np.testing.assert_allclose(found, factor * sizes[finite], rtol=1e-6)


def test_the_call_of_the_document() -> None:
    """Adaptive, for it is enabled: the 10th percentile in [0.1, 10], and never above clip_value."""
    optimizer = ck.Optimizer("sgd", 1.0, gradient_clip_norm=5.0)
    optimizer.configure_gradient_clipping(SEED)
    assert norms(optimizer, [0.02]) == pytest.approx([0.02])
    assert optimizer.statistics().clip_threshold == pytest.approx(0.1)  # min_clip_value
    series = [0.5, 0.8, 0.3, 4.0]
    for i, norm in enumerate(norms(optimizer, series)):
        limit = np.clip(np.percentile([0.02, *series[: i + 1]], 10), 0.1, 1.0)
        assert norm == pytest.approx(min(series[i], limit), rel=1e-6)
    assert optimizer.global_clipnorm is None  # replaced


def test_the_call_of_the_document_and_a_fixed_limit_that_is_smaller() -> None:
    """With norms around 4 the percentile lies above clip_value=1, which wins."""
    optimizer = sgd(SEED)
    assert norms(optimizer, [4.0, 5.0, 3.0]) == pytest.approx([1.0] * 3)
    assert optimizer.statistics().clip_threshold == 1.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2.0, 3.0, 4.0]),
        ({"min_clip_value": 3.5}, [2.0, 3.5, 4.0]),
        ({"max_clip_value": 2.5}, [2.0, 2.5, 2.5]),
        ({"min_clip_value": 2.5, "max_clip_value": 3.5}, [2.0, 3.0, 3.5]),
        ({"percentile": 0}, [2.0, 2.0, 2.0]),
        ({"percentile": 100}, [2.0, 4.0, 6.0]),
        ({"percentile": 25}, [2.0, 2.5, 3.0]),
    ],
)
def test_percentile_and_bounds(options: dict[str, float], expected: list[float]) -> None:
    """Of norms 2, 4, 6: the medians are 2, 3 and 4."""
    assert norms(sgd(adaptive(**({"percentile": 50} | options))), [2.0, 4.0, 6.0]) == pytest.approx(expected)


def test_the_fixed_limit_beside_the_percentile() -> None:
    optimizer = sgd(adaptive(percentile=50) | {"clip_value": 3.5})
    assert norms(optimizer, [2.0, 4.0, 6.0]) == pytest.approx([2.0, 3.0, 3.5])


def test_a_history_for_each_variable() -> None:
    """Norms differ by a factor of 100; a missing gradient leaves its variable's history as it is."""
    optimizer = sgd(adaptive(percentile=50, history_length=3) | {"per_parameter_clipping": True})
    ws = [keras.Variable(np.zeros(2, "float32"), name=name) for name in "ab"]
    rng = np.random.default_rng(0)
    recent: list[list[float]] = [[], []]
    for t in range(12):
        grads = [s * rng.normal(size=2).astype("float32") * 10 ** rng.uniform(-1, 1) for s in (1.0, 100.0)]
        present = [True, t % 4 != 2]
        before = values(ws)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the missing one
            given = [ops.convert_to_tensor(g) if p else None for g, p in zip(grads, present, strict=True)]
            optimizer.apply(given, ws)
        limits = []
        for g, p, old, w, sizes in zip(grads, present, before, values(ws), recent, strict=True):
            if not p:
                np.testing.assert_array_equal(w, old)
                continue
            sizes.append(np.linalg.norm(g.astype("float64")))
            limits.append(np.percentile(sizes[-3:], 50))
            np.testing.assert_allclose(old - w, g * min(1, limits[-1] / sizes[-1]), rtol=1e-4, atol=1e-4)
        assert optimizer.statistics().clip_threshold == pytest.approx(min(limits), rel=1e-6)  # the lowest


def test_a_gradient_that_is_not_finite_leaves_all_histories_as_they_are() -> None:
    optimizer = sgd(adaptive(percentile=0) | {"per_parameter_clipping": True})
    step(optimizer, [4.0], [2.0])
    assert [x.item() for x in step(optimizer, [1.0], [np.nan])] == [0.0, 0.0]
    assert [x.item() for x in step(optimizer, [8.0], [8.0])] == pytest.approx([4.0, 2.0])


def test_with_accumulation_the_history_is_of_whole_windows() -> None:
    """Means 2, 4, 6 of two micro-batches each, whose medians are 2, 3, 4."""
    optimizer = sgd(adaptive(percentile=50), gradient_accumulation_steps=2)
    w = keras.Variable([0.0])
    for g in (1.0, 3.0, 9.0, -1.0, 6.0, 6.0):
        optimizer.apply([ops.array([g])], [w])
    assert w.numpy().item() == pytest.approx(-(2 + 3 + 4))
    assert optimizer.statistics().clip_threshold == pytest.approx(4.0)


def test_a_new_percentile_keeps_the_history() -> None:
    """2, 4 and 6 are remembered; with 8 their 100th percentile is 8 and their lowest 2."""
    optimizer = sgd(adaptive(percentile=50))
    assert norms(optimizer, [2.0, 4.0, 6.0]) == pytest.approx([2.0, 3.0, 4.0])
    optimizer.configure_gradient_clipping(adaptive(percentile=0))
    assert norms(optimizer, [8.0]) == pytest.approx([2.0])
    optimizer.adaptive_clipping = {"percentile": 100}
    assert norms(optimizer, [8.0]) == pytest.approx([8.0])


def test_a_new_percentile_acts_in_a_compiled_loop_without_a_new_trace() -> None:
    """It is a number, kept in a variable: nothing that was compiled is out of date."""
    optimizer, w, traces = sgd(adaptive(percentile=50, max_clip_value=10.0)), keras.Variable([0.0]), []
    optimizer.build([w])

    @tf.function
    def update(g: tf.Tensor) -> None:
        traces.append(1)
        optimizer.apply([g], [w])

    for g in (2.0, 4.0, 6.0):
        update(tf.constant([g]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # that a compiled step holds the old options
        optimizer.configure_gradient_clipping(adaptive(percentile=100, max_clip_value=7.0))
    w.assign([0.0])
    update(tf.constant([8.0]))
    assert w.numpy().item() == pytest.approx(-7.0)
    assert len(traces) == 1


def test_another_history_length_starts_a_new_history() -> None:
    optimizer = sgd(adaptive(percentile=0, history_length=10))
    norms(optimizer, [1.0, 1.0])
    optimizer.configure_gradient_clipping(adaptive(percentile=0, history_length=2))
    assert norms(optimizer, [5.0, 6.0, 7.0]) == pytest.approx([5.0, 5.0, 6.0])


@pytest.mark.parametrize("each", [False, True])
def test_the_history_survives_saving_bit_for_bit(each: bool, tmp_path: Path) -> None:
    """After 7 batches with a history of 5, the ring has wrapped: it goes on at the right place."""
    options = adaptive(percentile=30, history_length=5) | {"per_parameter_clipping": each}
    x, y = regression()

    def batches(model: keras.Model, numbers: range) -> None:
        for i in numbers:
            model.train_on_batch(x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2])

    options |= {"skip_spikes": 3.0, "jit_compile": False}
    one, two = (regressor(ck.Optimizer("adam", 0.01, **options)) for _ in range(2))
    batches(one, range(7))
    one.save_weights(tmp_path / "one.weights.h5")
    two.load_weights(tmp_path / "one.weights.h5")
    batches(one, range(7, 14))
    batches(two, range(7, 14))
    for a, b in zip([*values(one), *values(one.optimizer)], [*values(two), *values(two.optimizer)], strict=True):
        assert a.tobytes() == b.tobytes()
    assert one.optimizer.counters()["clipped"] > 5

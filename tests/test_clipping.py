"""Adaptive, unit-wise and fixed limits, how they replace each other, and spikes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import capibara_keras as ck
from tests.models import regression, regressor, values, variables

SEED = {
    "clip_method": "norm",
    "clip_value": 1.0,
    "adaptive_clipping": {
        "enable": True,
        "percentile": 10,
        "history_length": 1000,
        "min_clip_value": 0.1,
        "max_clip_value": 10.0,
    },
    "per_parameter_clipping": False,
    "clip_coeff": 0.01,
}
"""As in the founding document."""


def adaptive(**options: Any) -> dict[str, Any]:
    return {"clip_method": "adaptive", "adaptive_clipping": options}


def sgd(*configurations: dict[str, Any], **options: Any) -> ck.Optimizer:
    """An optimizer whose step is the clipped gradient, negated; without XLA, whose compiler takes most of the time."""
    optimizer = ck.Optimizer("sgd", 1.0, **({"jit_compile": False} | options))
    for configuration in configurations:
        optimizer.configure_gradient_clipping(configuration)
    return optimizer


def step(optimizer: Any, *grads: Any, at: Sequence[keras.Variable] | None = None) -> list[np.ndarray]:
    """What became of gradients in an update of variables that begin at zero (`at`: at what they are)."""
    zeros = at is None
    ws = [keras.Variable(np.zeros_like(g, "float32")) for g in grads] if at is None else list(at)
    if zeros and optimizer.built:
        ws = optimizer._trainable_variables
        for w in ws:
            w.assign(ops.zeros_like(w))
    before = values(ws)
    optimizer.apply([ops.convert_to_tensor(g, "float32") for g in grads], ws)
    return [b - a for b, a in zip(before, values(ws), strict=True)]


def norms(optimizer: Any, series: Sequence[float]) -> list[float]:
    """Norms after clipping, of a series of gradients of one entry."""
    return [abs(step(optimizer, np.array([x]))[0].item()) for x in series]


# Adaptive ----------------------------------------------------------------------------------------------------


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
        for g, p, old, w, norms in zip(grads, present, before, values(ws), recent, strict=True):
            if not p:
                np.testing.assert_array_equal(w, old)
                continue
            norms.append(np.linalg.norm(g.astype("float64")))
            limits.append(np.percentile(norms[-3:], 50))
            np.testing.assert_allclose(old - w, g * min(1, limits[-1] / norms[-1]), rtol=1e-4, atol=1e-4)
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


# Unit by unit ------------------------------------------------------------------------------------------------


def by_unit(g: np.ndarray, w: np.ndarray, units: Callable[[np.ndarray], list[np.ndarray]], c: float) -> np.ndarray:
    """Brock et al. 2021, Equation 3, in float64; `units` gives views of an array, one per unit."""
    g, w = g.astype("float64"), w.astype("float64")
    for a, b in zip(units(g), units(w), strict=True):
        a *= min(1.0, c * max(np.linalg.norm(b.ravel()), 1e-3) / max(np.linalg.norm(a.ravel()), 1e-6))
    return g


def last(x: np.ndarray) -> list[np.ndarray]:
    """A unit for each entry of the last axis: Dense IO, Conv HWIO."""
    return [x[..., i] for i in range(x.shape[-1])]


def whole(x: np.ndarray) -> list[np.ndarray]:
    return [x]


def rows(x: np.ndarray) -> list[np.ndarray]:
    """A unit for each token."""
    return list(x)


def last_two(x: np.ndarray) -> list[np.ndarray]:
    """A unit for each (channel, multiplier), or (head, key)."""
    return [x[..., i, j] for i in range(x.shape[-2]) for j in range(x.shape[-1])]


def last_but_one(x: np.ndarray) -> list[np.ndarray]:
    """A unit for each output channel of a transposed convolution, whose kernel is HWOI."""
    return [x[..., i, :] for i in range(x.shape[-2])]


UNITS: dict[str, tuple[Callable[[], Any], tuple[int, ...], dict[str, Any]]] = {
    "Dense": (lambda: layers.Dense(3), (4,), {"kernel": last, "bias": whole}),
    "Conv1D": (lambda: layers.Conv1D(3, 2), (5, 4), {"kernel": last, "bias": whole}),
    "Conv2D": (lambda: layers.Conv2D(3, 2), (5, 5, 4), {"kernel": last, "bias": whole}),
    "Conv3D": (lambda: layers.Conv3D(3, 2), (4, 4, 4, 2), {"kernel": last, "bias": whole}),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(2, depth_multiplier=3), (5, 4), {"kernel": last_two}),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(2, depth_multiplier=3), (5, 5, 4), {"kernel": last_two}),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(3, 2),
        (5, 5, 4),
        {"depthwise_kernel": last_two, "pointwise_kernel": last},
    ),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(3, 2), (5, 4), {"kernel": last_but_one}),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(3, 2), (5, 5, 4), {"kernel": last_but_one}),
    "Embedding": (lambda: layers.Embedding(6, 4), (), {"embeddings": rows}),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2, 3),
        (5, 4),
        {
            "query/kernel": last_two,
            "key/kernel": last_two,
            "value/kernel": last_two,
            "query/bias": whole,
            "attention_output/kernel": last,
            "attention_output/bias": whole,
        },
    ),
    "LSTM": (lambda: layers.LSTM(3), (5, 4), {"kernel": last, "recurrent_kernel": last, "bias": whole}),
}


def of_layer(name: str) -> tuple[keras.Model, dict[str, Any]]:
    """A model of one layer and a Dense output, with weights that no initialiser made zero, and the layer's units."""
    make, shape, units = UNITS[name]
    inputs, layer = keras.Input(shape), make()
    x = layer(inputs, inputs) if name == "MultiHeadAttention" else layer(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    rng = np.random.default_rng(0)
    model.set_weights([0.1 * rng.normal(size=w.shape) for w in model.weights])
    return model, units


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("name", UNITS)
def test_units_of_layers(name: str, attached: bool) -> None:
    """A Dense or convolution kernel has a unit per output, an embedding one per token, attention one per
    (head, key); a bias is one. The layers are known with a model, and without one from Keras' names."""
    model, units = of_layer(name)
    optimizer = sgd({"clip_method": "agc", "clip_coeff": 0.05})
    if attached:
        optimizer.attach(model=model)
    variables = model.trainable_variables
    rng = np.random.default_rng(1)
    grads = [(0.02 * rng.normal(size=v.shape)).astype("float32") for v in variables]
    before = values(variables)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # every one of these layers is known
        found = step(optimizer, *grads, at=variables)
    checked = set()
    for v, g, w, moved in zip(variables, grads, before, found, strict=True):
        if v.path.startswith("out/"):
            np.testing.assert_allclose(moved, g, atol=1e-8)  # the output layer is left out
            continue
        for suffix, views in units.items():
            if v.path.endswith("/" + suffix):
                checked.add(suffix)
                expected = by_unit(g, w, views, 0.05)
                assert np.abs(expected - g).max() > 0.01 * np.abs(g).max()  # there is something to clip
                np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=2e-8)
    assert checked == set(units)


def test_the_units_come_from_the_model_whatever_the_names() -> None:
    """A transposed convolution and a depthwise one under other names; `fit` with a callback brings the model."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2DTranspose(3, 2, name="up")(inputs)
    x = layers.DepthwiseConv2D(2, name="filter")(x)
    model = keras.Model(inputs, layers.Dense(1, name="out")(layers.Flatten()(x)))
    model.compile(sgd({"clip_method": "agc", "clip_coeff": 1e-3}), "mse")
    before = values(model.trainable_variables)
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(4, 4, 4, 2)), 100 * rng.normal(size=(4, 1)), verbose=0, callbacks=[ck.Attach()])
    for v, old, new in zip(model.trainable_variables, before, values(model.trainable_variables), strict=True):
        if len(v.shape) == 4:
            units = last_but_one if v.path.startswith("up") else last_two
            ratios = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(units(old), units(new), strict=True)]
            assert ratios == pytest.approx([1e-3] * len(ratios), rel=1e-3)  # all units at the limit


def test_the_output_layer_is_clipped_where_asked_for() -> None:
    """The last layer with a matrix, its bias included."""
    changes = []
    for include in (False, True):
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.LayerNormalization(), layers.Dense(2)])
        optimizer = sgd({"clip_method": "agc", "clip_coeff": 0.01, "clip_output_layer": include})
        found = step(optimizer, *[np.ones(v.shape) for v in model.variables], at=model.trainable_variables)
        changes.append([bool(np.all(x < 0.5)) for x in found])
    assert changes == [[True] * 4 + [False] * 2, [True] * 6]


def test_weights_that_are_zero_can_move() -> None:
    """The norm of a weight counts as at least 1e-3, or a bias would stay zero for ever."""
    optimizer = sgd({"clip_method": "agc", "clip_coeff": 0.1, "clip_output_layer": True})
    assert step(optimizer, [3.0, 4.0])[0] == pytest.approx([0.1e-3 * 0.6, 0.1e-3 * 0.8])


def test_agc_matches_optax() -> None:
    """`optax.adaptive_grad_clip(0.01)` and SGD, five updates."""
    data = json.loads((Path(__file__).parent / "data" / "optimizers.json").read_text())
    w, i = keras.Variable(np.array(data["problem"]["p0"], "float32")), np.arange(6).reshape(3, 2)
    optimizer = ck.Optimizer("sgd", 0.01, clip_method="agc", clip_coeff=0.01, clip_output_layer=True)
    for t in range(1, 6):
        optimizer.apply([ops.convert_to_tensor(0.1 * (i + 1) * np.cos(0.7 * t + i), "float32")], [w])
    np.testing.assert_allclose(w.numpy(), data["optax 0.2.8"]["agc.01+sgd"], rtol=0, atol=1e-6)


class Mixing(layers.Layer):
    def build(self, shape: Any) -> None:
        self.mixture = self.add_weight(shape=(shape[-1], 3), name="mixture")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.mixture)


def test_an_unknown_layer_warns() -> None:
    model = keras.Sequential([keras.Input((4,)), Mixing(name="mixing"), layers.Dense(2)])
    optimizer = sgd({"clip_method": "agc"})
    optimizer.attach(model=model)
    with pytest.warns(UserWarning, match=r"last axis as the units of .*mixing/mixture \(Mixing\)"):
        step(optimizer, *[np.ones(v.shape) for v in model.variables], at=model.trainable_variables)


# One method replaces another ---------------------------------------------------------------------------------


def described(optimizer: ck.Optimizer) -> str:
    """What `describe` prints."""
    lines: list[str] = []
    optimizer.describe(print_fn=lines.append)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (SEED, ["clip_coeff=0.01 has no effect: clip_method is 'adaptive'"]),
        (
            {"clip_method": "value", "clip_value": 0.5, "clip_coeff": 0.02, "per_parameter_clipping": False},
            ["clip_coeff=0.02 has no effect: clip_method is 'value'"],
        ),
        (
            {"clip_method": "norm", "clip_value": 0.5, "adaptive_clipping": {"enable": False, "percentile": 20}},
            ["adaptive_clipping={'enable': False, 'percentile': 20} has no effect: clip_method is 'norm'"],
        ),
        (
            {"clip_method": "agc", "clip_value": 0.5, "clip_coeff": 0.02},
            ["clip_value=0.5 has no effect: clip_method is 'agc'"],
        ),
        (adaptive(percentile=20), []),
    ],
)
def test_options_without_effect_are_kept_and_described(options: dict[str, Any], idle: list[str]) -> None:
    optimizer = sgd(options)
    optimizer.build(variables((2, 2), (2,)))
    for one in (optimizer, ck.Optimizer.from_config(optimizer.get_config())):
        assert {name: one.get_config()[name] for name in options} == options
    assert [line for line in described(optimizer).splitlines() if "no effect" in line] == idle


NORM, VALUE = {"clip_method": "norm", "clip_value": 2.0}, {"clip_method": "value", "clip_value": 0.5}


METHODS: dict[str, tuple[Callable[[ck.Optimizer], None], list[float]]] = {
    "global norm": (lambda o: o.configure_gradient_clipping(NORM), [1.2, 1.6]),
    "value": (lambda o: o.configure_gradient_clipping(VALUE), [0.5, 0.5]),
    "norm": (lambda o: o.configure_gradient_clipping(NORM | {"per_parameter_clipping": True}), [2.0, 2.0]),
    "adaptive": (lambda o: o.configure_gradient_clipping(adaptive(max_clip_value=2.5)), [1.5, 2.0]),
    "document": (lambda o: o.configure_gradient_clipping(SEED), [0.6, 0.8]),
    "agc": (lambda o: o.configure_gradient_clipping({"clip_method": "agc", "clip_output_layer": True}), [1e-5, 1e-5]),
    "nothing": (lambda o: o.configure_gradient_clipping({}), [3.0, 4.0]),
    "clip_value": (lambda o: setattr(o, "clip_value", 0.5), [0.3, 0.4]),
    "adaptive_clipping": (lambda o: setattr(o, "adaptive_clipping", {"enable": True, "max_clip_value": 2}), [1.2, 1.6]),
    "global_clipnorm": (lambda o: setattr(o, "global_clipnorm", 1.0), [0.6, 0.8]),
    "clipnorm": (lambda o: setattr(o, "clipnorm", 1.0), [1.0, 1.0]),
    "clipvalue": (lambda o: setattr(o, "clipvalue", 0.25), [0.25, 0.25]),
    "gradient_clip_norm": (lambda o: o.reconfigure({"gradient_clip_norm": 1.0}), [0.6, 0.8]),
}
"""Ways to choose a method -> what becomes of gradients 3 and 4, of norm 5, whatever there was before."""


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_last_method_counts(seed: int) -> None:
    """One optimizer, by one method after the other, in random orders, updates between them."""
    optimizer = sgd(global_clipnorm=0.1)
    step(optimizer, [30.0], [40.0])
    for name in ["clip_value", *np.random.default_rng(seed).permutation(list(METHODS))]:
        change, expected = METHODS[name]
        if name in ("clip_value", "adaptive_clipping"):
            optimizer.global_clipnorm = 9.0  # these two go on with the rest of `configure_gradient_clipping`'s options
        change(optimizer)
        assert [x.item() for x in step(optimizer, [3.0], [4.0])] == pytest.approx(expected), name


@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", ["global_clipnorm", "document", "value", "agc"])
def test_of_two_methods_the_last_is_in_the_config(first: str, second: str) -> None:
    """And the first is not; also before the first update."""
    optimizer, alone = sgd(), sgd()
    METHODS[first][0](optimizer)
    if second in ("clip_value", "adaptive_clipping"):
        optimizer.global_clipnorm = 9.0
    METHODS[second][0](optimizer)
    METHODS[second][0](alone)
    assert optimizer.get_config() == alone.get_config() | {"name": optimizer.name}
    assert ck.Optimizer.from_config(optimizer.get_config()).get_config() == optimizer.get_config()


def test_taking_a_limit_away_ends_clipping() -> None:
    optimizer = sgd(global_clipnorm=1.0)
    optimizer.global_clipnorm = None
    assert norms(optimizer, [5.0]) == [5.0]
    assert np.isnan(optimizer.statistics().clip_threshold)


def test_a_bad_change_changes_nothing() -> None:
    optimizer = sgd(VALUE)
    config = optimizer.get_config()
    with pytest.raises(ck.ConfigError):
        optimizer.configure_gradient_clipping({"clip_method": "norm", "clip_value": -1.0})
    assert optimizer.get_config() == config
    assert norms(optimizer, [3.0]) == [0.5]


def enabled(**options: Any) -> dict[str, Any]:
    return {"adaptive_clipping": {"enable": True} | options}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (enabled(percentile=101), r"percentile: expected a number in \[0, 100\], received 101"),
        (enabled(percentile=-1), r"percentile: expected a number in \[0, 100\], received -1"),
        (enabled(percentile="10"), r"percentile: expected a number in \[0, 100\], received '10'"),
        (enabled(history_length=1), "history_length: expected a whole number >= 2, received 1"),
        (enabled(history_length=2.5), "history_length: expected a whole number >= 2, received 2.5"),
        (enabled(min_clip_value=2.0, max_clip_value=1.0), r"min_clip_value=2.0 is above max_clip_value=1.0"),
        (enabled(min_clip_value=-1.0), "min_clip_value: expected a number >= 0, received -1.0"),
        (enabled(max_clip_value=0.0), "max_clip_value: expected a number > 0, received 0.0"),
        (enabled(percentle=10), "unknown adaptive_clipping 'percentle'. Did you mean 'percentile'"),
        ({"adaptive_clipping": {"enable": "yes"}}, "adaptive_clipping.enable: expected True or False, received 'yes'"),
        ({"adaptive_clipping": True}, "adaptive_clipping: expected a dictionary.* received True"),
        (adaptive(enable=False), "clip_method='adaptive' contradicts adaptive_clipping.enable=False"),
        ({"clip_methd": "norm"}, "unknown clipping option 'clip_methd'. Did you mean 'clip_method'"),
        ({"clip_method": "nrom", "clip_value": 1.0}, "unknown clip_method 'nrom'. Did you mean 'norm'"),
        ({"clip_method": "norm"}, "clip_method='norm' needs clip_value, a number > 0"),
        ({"clip_method": "value"}, "clip_method='value' needs clip_value, a number > 0"),
        ({"clip_method": "norm", "clip_value": 0}, "clip_value: expected a number > 0, received 0"),
        ({"clip_method": "norm", "clip_value": float("nan")}, "clip_value: expected a number > 0, received nan"),
        ({"clip_method": "agc", "clip_coeff": 0.0}, "clip_coeff: expected a number > 0, received 0.0"),
        ({"clip_method": "agc", "clip_output_layer": 1}, "clip_output_layer: expected True or False, received 1"),
        ({"clip_value": 1.0, "per_parameter_clipping": 1}, "per_parameter_clipping: expected True or False"),
        (NORM | {"clip_coeff": "x"}, "clip_coeff: expected a number > 0, received 'x'"),
        (NORM | {"adaptive_clipping": {"enable": False, "percentile": 1000}}, "percentile: expected a number in"),
        ({"clip_method": "agc", "clip_value": -1.0}, "clip_value: expected a number > 0, received -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Refused by the call and by the constructor, also where they would have no effect."""
    with pytest.raises(ck.ConfigError, match=message):
        sgd(options)
    with pytest.raises(ck.ConfigError, match=message.replace("clipping option", "option")):
        ck.Optimizer("sgd", **options)


def test_whole_numbers_as_floats_are_taken() -> None:
    """As JSON may bring them."""
    assert norms(sgd(adaptive(percentile=50, history_length=2.0)), [2.0, 4.0, 6.0]) == pytest.approx([2.0, 3.0, 5.0])


def test_two_ways_at_once_are_refused() -> None:
    with pytest.raises(ck.ConfigError, match=r"clipnorm=1\.0 and clip_method='norm' and clip_value=1\.0 exclude"):
        ck.Optimizer("sgd", clipnorm=1.0, clip_method="norm", clip_value=1.0)


def test_adaptive_clipping_of_a_group_is_refused() -> None:
    with pytest.raises(ck.ConfigError, match="group 'a': adaptive clipping is for all variables, not for one group"):
        ck.Optimizer("sgd", groups=[{"pattern": "a", "clip_method": "adaptive"}])


# Spikes ------------------------------------------------------------------------------------------------------


def calm(count: int, level: float = 1.0) -> list[float]:
    """Norms with a standard deviation of a tenth of their mean."""
    return list(level * (1 + 0.1 * np.random.default_rng(0).normal(size=count).clip(-3, 3)))


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_spike_is_skipped_bit_for_bit(jit_compile: bool) -> None:
    """Norm 50 after norms around 1: weights, moments and the update count stay; it is counted as a spike."""
    optimizer = ck.Optimizer("adam", 0.1, skip_spikes=6.0, use_ema=True, jit_compile=jit_compile)
    w = keras.Variable([1.0, -0.0])
    for x in calm(30):
        optimizer.apply([ops.array([x, 0.0])], [w])
    state = [*optimizer._state.slots[0], *optimizer._state.averages[0], w]
    before = [v.tobytes() for v in values(state)]
    optimizer.apply([ops.array([50.0, 0.0])], [w])
    assert [v.tobytes() for v in values(state)] == before
    assert optimizer.counters() == {"micro_steps": 31, "skipped": 1, "clipped": 0, "spikes": 1, "dropped": 0}
    assert optimizer.statistics().skipped
    assert optimizer.statistics().gradient_norm == pytest.approx(50.0)
    assert int(optimizer.iterations) == 30
    optimizer.apply([ops.array([1.0, 0.0])], [w])
    assert int(optimizer.iterations) == 31


def test_the_limit_is_so_many_standard_deviations() -> None:
    """Of the last norms: a little below it passes, a little above it does not."""
    series = calm(40)
    limit = np.mean(series) + 5 * np.std(series)
    for x, skipped in ((0.999 * limit, False), (1.001 * limit, True)):
        optimizer = sgd(skip_spikes=5.0)
        norms(optimizer, [*series, x])
        assert optimizer.statistics().skipped == skipped


def test_a_lasting_change_of_level_is_accepted() -> None:
    """The norms of skipped updates are remembered too: before long they are no longer unusual."""
    optimizer = sgd(skip_spikes=5.0)
    norms(optimizer, calm(100))
    moved = norms(optimizer, calm(60, level=20.0))
    skipped = [x == 0 for x in moved]
    first = skipped.index(False)
    assert 1 <= first <= 20
    assert not any(skipped[first:])


def test_the_first_updates_are_never_spikes() -> None:
    """There is nothing yet to measure against."""
    optimizer = sgd(skip_spikes=3.0)
    assert 0.0 not in norms(optimizer, [1.0, 100.0, 1.0, 1e4, 1.0])


def test_constant_norms_are_no_spikes() -> None:
    """Their deviation is 0, or what rounding makes of it."""
    optimizer = sgd(skip_spikes=3.0)
    norms(optimizer, [0.1] * 300)
    assert optimizer.counters()["spikes"] == 0


def test_a_gradient_that_is_not_finite_is_no_spike() -> None:
    """It is skipped for itself, and not remembered."""
    optimizer = sgd(skip_spikes=5.0)
    norms(optimizer, [*calm(40), np.nan, np.inf])
    assert optimizer.counters()["skipped"] == 2
    assert optimizer.counters()["spikes"] == 0
    assert norms(optimizer, [1.0]) == [1.0]


def test_with_accumulation_the_window_is_skipped() -> None:
    optimizer, w = sgd(skip_spikes=5.0, gradient_accumulation_steps=2), keras.Variable([0.0])
    for x in np.repeat(calm(20), 2):
        optimizer.apply([ops.array([x])], [w])
    before = w.numpy().tobytes()
    for x in (1.0, 99.0):
        optimizer.apply([ops.array([x])], [w])
    assert w.numpy().tobytes() == before
    assert optimizer.counters()["spikes"] == 1
    assert optimizer.pending_micro_batches == 0


def test_spikes_pass_by_default() -> None:
    optimizer = sgd()
    assert norms(optimizer, [*calm(40), 1000.0])[-1] == 1000.0
    assert optimizer.counters()["skipped"] == 0


def test_spike_skipping_can_come_later_and_go() -> None:
    optimizer = sgd()
    norms(optimizer, [1.0])
    optimizer.skip_spikes = 5.0
    assert norms(optimizer, [*calm(30), 50.0])[-1] == 0.0
    optimizer.skip_spikes = None
    assert norms(optimizer, [50.0]) == [50.0]


@pytest.mark.parametrize("value", [0, -1.0, True, "5", float("inf")])
def test_bad_sigmas(value: Any) -> None:
    with pytest.raises(ck.ConfigError, match="skip_spikes: expected a number > 0, received"):
        ck.Optimizer("sgd", skip_spikes=value)

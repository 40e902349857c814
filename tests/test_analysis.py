"""Gradients looked at, statistics in Keras' logs, and updates that can be differentiated."""

from __future__ import annotations

import csv
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from tests.models import line, regression, regressor, values, variables
from tests.reference import Reference
from tests.subprocess_runner import run

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def tensors(arrays: dict[str, Any]) -> dict[str, Any]:
    return {path: ops.convert_to_tensor(np.asarray(g, "float32")) for path, g in arrays.items()}


def analysed(arrays: dict[str, Any], **options: Any) -> Any:
    return ck.Optimizer("sgd").analyze_gradients(tensors(arrays), **options)


# analyze_gradients -------------------------------------------------------------------------------------------


def test_the_call_of_the_document() -> None:
    """After 30 updates with the document's clipping; the printed lines are those of NumPy."""
    rng = np.random.default_rng(0)
    model = regressor()
    optimizer = ck.Optimizer("sgd", 1e-3, jit_compile=False)
    optimizer.configure_gradient_clipping(
        {
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
    )
    norms, clipped = [], []
    for t in range(30):
        current_gradients = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        norms.append(math.sqrt(sum((g.astype("float64") ** 2).sum() for g in current_gradients)))
        clipped.append(norms[-1] > min(1.0, max(0.1, np.percentile(norms, 10))))
        optimizer.apply([ops.convert_to_tensor(g) for g in current_gradients], model.trainable_variables)
        assert optimizer.statistics().clipped == clipped[-1], t

    grad_analysis = optimizer.analyze_gradients(
        gradients=current_gradients,
        include_histogram=True,
        include_layer_wise_stats=True,
    )

    expected = dict(zip(PERCENTILES, np.percentile(norms, PERCENTILES), strict=True))
    assert grad_analysis["norm_percentiles"] == pytest.approx(expected, rel=1e-6)
    layer_norms = {}
    for i, layer in enumerate(model.layers):
        pair = [g.astype("float64") for g in current_gradients[2 * i : 2 * i + 2]]
        layer_norms[layer.kernel.path.rsplit("/", 1)[0]] = math.sqrt(sum((g**2).sum() for g in pair))
    assert grad_analysis["layer_norms"] == pytest.approx(layer_norms, rel=1e-6)
    assert list(grad_analysis["layer_norms"]) == list(layer_norms)
    assert grad_analysis["clipping_frequency"] == pytest.approx(np.mean(clipped))
    assert grad_analysis.norm == pytest.approx(norms[-1], rel=1e-6)
    assert grad_analysis.updates == 30
    assert (grad_analysis.histogram.counts.sum(), grad_analysis.histogram.zero) == (4 * 3 + 3 + 3 + 1, 0)

    assert f"Gradient norm distribution: {grad_analysis['norm_percentiles']}".startswith(
        "Gradient norm distribution: {1: "
    )
    assert f"Layer-wise gradient norms: {grad_analysis['layer_norms']}".count("dense") == 2
    frequency = f"Clipping frequency: {grad_analysis['clipping_frequency']:.3f}"
    assert frequency == f"Clipping frequency: {np.mean(clipped):.3f}"


def test_layers() -> None:
    """A layer is a path without its last part; norms, mean squares, zeros and what is not finite."""
    found = analysed(
        {
            "m/a/kernel": [[3.0, 0.0], [0.0, 0.0]],
            "m/a/bias": [4.0, 0.0],
            "m/b/kernel": [np.nan, np.inf, -np.inf, 1.0],
            "alone": [2.0],
        }
    )
    assert found.layer_norms["m/a"] == 5.0
    assert found.layer_norms["alone"] == 2.0
    assert math.isnan(found.layer_norms["m/b"])
    a, b = found.layers["m/a"], found["layers"]["m/b"]
    assert (a.norm, a.rms, a.zero_fraction, a.nonfinite) == (5.0, pytest.approx(5 / 6**0.5), pytest.approx(4 / 6), 0)
    assert (b.nonfinite, b.zero_fraction) == (3, 0.0)


def test_the_histogram_is_logarithmic() -> None:
    """Zeros and what is not finite are counted apart; what is outside the edges falls into the outer bins."""
    small, large = 1e-20, 1e10
    g = [0.0, 0.0, np.nan, np.inf, np.inf, -np.inf, small, -small, large, 1e-3, -2e-3, 0.5]
    histogram = analysed({"w": g}, include_histogram=True).histogram
    assert (histogram.zero, histogram.nan) == (2, 1)
    assert (histogram.positive_infinity, histogram.negative_infinity) == (2, 1)
    assert histogram.counts.sum() == 6
    assert histogram.counts[0] == 2 and histogram.counts[-1] == 1
    assert len(histogram.edges) == len(histogram.counts) + 1
    ratios = histogram.edges[1:] / histogram.edges[:-1]
    np.testing.assert_allclose(ratios, ratios[0])  # bins of equal width in the logarithm
    for x in (1e-3, 2e-3, 0.5):
        at = np.searchsorted(histogram.edges, x) - 1
        assert histogram.counts[at] >= 1


def test_what_was_not_asked_for_is_left_out() -> None:
    found = analysed({"w": [1.0]}, include_layer_wise_stats=False)
    assert found.layers == {}
    assert found.histogram is None
    assert found.layer_norms == {"w": 1.0}


def test_nothing_is_known_before_the_first_update() -> None:
    """`nan`, never 0, and printable."""
    found = analysed({"w": [1.0]})
    assert found.updates == 0
    assert all(math.isnan(x) for x in found.norm_percentiles.values())
    assert f"{found['clipping_frequency']:.3f}" == "nan"


def applied(optimizer: Any, *grads: Any) -> Any:
    w = keras.Variable(np.zeros_like(grads[0], "float32"), name="w")
    for g in grads:
        optimizer.apply([ops.convert_to_tensor(g, "float32")], [w])
    return optimizer


@pytest.mark.parametrize(
    ("options", "frequency"),
    [
        ({}, math.nan),
        ({"global_clipnorm": 3.0}, 0.5),
        ({"clipvalue": 100.0}, 0.0),
        ({"clip_method": "agc", "clip_output_layer": True}, 1.0),
        ({"groups": [{"pattern": "w", "clipnorm": 3.0}]}, 0.5),
    ],
)
def test_clipping_frequency(options: dict[str, Any], frequency: float) -> None:
    """Of norms 1, 2, 3.5 and 4; where nothing is ever clipped there is no such thing."""
    optimizer = applied(ck.Optimizer("sgd", 0.0, jit_compile=False, **options), [1.0], [2.0], [3.5], [4.0])
    found = optimizer.analyze_gradients([ops.ones(1)])
    assert found.clipping_frequency == pytest.approx(frequency, nan_ok=True)
    assert optimizer.clipped_share() == pytest.approx(frequency, nan_ok=True)
    assert found.norm_percentiles[50] == pytest.approx(2.75)


def test_norms_that_are_not_finite_are_left_out_of_the_percentiles() -> None:
    optimizer = applied(ck.SGD(0.0, jit_compile=False), [1.0], [np.nan], [3.0], [np.inf])
    found = optimizer.analyze_gradients([ops.ones(1)])
    assert found.updates == 2
    assert found.norm_percentiles[50] == pytest.approx(2.0)


def test_old_updates_are_forgotten() -> None:
    """256 norms are kept, and the clipping frequency is of the last 100."""
    optimizer, w = ck.SGD(0.0, global_clipnorm=150.0, jit_compile=False), keras.Variable([0.0])
    for g in range(300):
        optimizer.apply([ops.array([float(g if g < 230 else 1)])], [w])
    found = optimizer.analyze_gradients([ops.ones(1)])
    assert found.updates == 256
    recent = [g if g < 230 else 1 for g in range(300)][-256:]
    assert list(found.norm_percentiles.values()) == pytest.approx(np.percentile(recent, PERCENTILES))
    assert found.clipping_frequency == pytest.approx(np.mean([g > 150 for g in recent[-100:]]))


def test_gradients_of_every_form() -> None:
    """A list in the order of the variables, with gaps; sparse ones; half precision; NumPy arrays."""
    names = ("a", "b", "c", "d")
    ws = [keras.Variable(np.zeros((4, 2), "float32"), name=name) for name in names]
    optimizer = ck.SGD()
    optimizer.build(ws)
    rows = tf.IndexedSlices(tf.constant([[3.0, 0.0], [0.0, 1.0]]), tf.constant([1, 1]), (4, 2))
    half = ops.cast(ops.full((4, 2), 0.5), "bfloat16")
    found = optimizer.analyze_gradients([rows, None, half, np.full((4, 2), 2.0)])
    assert found.layer_norms == pytest.approx({"a": 10**0.5, "c": 2**0.5, "d": 32**0.5})  # duplicate rows are summed


def test_a_wrong_number_of_gradients() -> None:
    optimizer = applied(ck.SGD(jit_compile=False), [1.0])
    with pytest.raises(ck.ConfigError, match="analyze_gradients: 2 gradients for 1 variables"):
        optimizer.analyze_gradients([ops.ones(1), ops.ones(1)])


# In Keras' logs ----------------------------------------------------------------------------------------------

Y = np.array([[1.0], [4.0], [2.0], [8.0], [3.0], [6.0]], "float32")
"""Gradients of `line`, one a batch."""


class Watch(keras.callbacks.Callback):
    """The logs of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(dict(logs))


def fit(optimizer: Any, *callbacks: keras.callbacks.Callback, epochs: int = 2) -> dict[str, list[float]]:
    model = line(optimizer, run_eagerly=True)
    arguments: dict[str, Any] = {"batch_size": 1, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(np.ones_like(Y), Y, callbacks=list(callbacks), **arguments).history


def test_clipping_statistics_in_history_and_csv(tmp_path: Path) -> None:
    """An entry per epoch with the values of its last update; the share is of all updates so far."""
    path = tmp_path / "log.csv"
    callbacks = [ck.ClippingStatistics(), keras.callbacks.CSVLogger(path)]
    optimizer = ck.SGD(0.0, clip_method="adaptive", adaptive_clipping={"percentile": 50}, jit_compile=False)
    history = fit(optimizer, *callbacks)
    limits, shares = [], []
    for epoch in (1, 2):
        norms = np.concatenate([Y.ravel()] * epoch)
        limits.append(np.percentile(norms, 50))
        medians = [np.percentile(norms[: i + 1], 50) for i in range(len(norms))]
        shares.append(np.mean(norms > medians))
    assert history["gradient_norm"] == pytest.approx([6.0, 6.0])
    assert history["clip_threshold"] == pytest.approx(limits)
    assert history["clipped_share"] == pytest.approx(shares)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in ("gradient_norm", "clip_threshold", "clipped_share"):
        assert [float(row[name]) for row in rows] == pytest.approx(history[name])
    assert optimizer.statistics().clip_threshold == pytest.approx(limits[-1])
    assert optimizer.clipped_share() == pytest.approx(shares[-1])


def test_clipping_statistics_without_clipping() -> None:
    """There is a norm, and no threshold."""
    history = fit(ck.SGD(0.0, jit_compile=False), ck.ClippingStatistics())
    assert history["gradient_norm"] == pytest.approx([6.0, 6.0])
    assert np.isnan(history["clip_threshold"]).all()
    assert np.isnan(history["clipped_share"]).all()


@pytest.mark.parametrize("every", [1, 3, 4])
def test_reading_every_so_many_batches(every: int) -> None:
    """Between two readings the last one stands, and the first comes at once; an epoch ends with its own values."""
    watch = Watch()
    callbacks = [ck.ClippingStatistics(every=every), watch]
    history = fit(ck.SGD(0.0, global_clipnorm=2.5, jit_compile=False), *callbacks, epochs=1)
    norms = Y.ravel()
    read = [i if (i + 1) % every == 0 else (i + 1) // every * every - 1 for i in range(6)]
    assert [x["gradient_norm"] for x in watch.seen] == pytest.approx([norms[max(i, 0)] for i in read])
    assert history["gradient_norm"] == [6.0]
    assert history["clipped_share"] == pytest.approx([4 / 6])


def test_norms_of_layers() -> None:
    """Of the last batch; together they are the norm over all."""
    model = regressor(ck.SGD(0.0, jit_compile=False), run_eagerly=True)
    x, y = regression()
    history = model.fit(x, y, batch_size=32, verbose=0, callbacks=[ck.ClippingStatistics(per_layer=True)]).history
    with tf.GradientTape() as tape:
        loss = ops.mean(ops.square(model(x) - y))
    grads = [g.numpy().astype("float64") for g in tape.gradient(loss, model.trainable_variables)]
    layer_names = [layer.kernel.path.rsplit("/", 1)[0] for layer in model.layers]
    for i, name in enumerate(layer_names):
        expected = math.sqrt(sum((g**2).sum() for g in grads[2 * i : 2 * i + 2]))
        assert history[f"gradient_norm/{name}"] == pytest.approx([expected], rel=1e-5)
    total = math.sqrt(sum(history[f"gradient_norm/{name}"][0] ** 2 for name in layer_names))
    assert history["gradient_norm"] == pytest.approx([total], rel=1e-5)


def test_norms_of_layers_without_gradient() -> None:
    """A missing one does not hide the layer's others; a layer that has none at all has no norm."""
    paths = [("a", "kernel"), ("a", "bias"), ("b", "kernel")]
    ws = []
    for layer, name in paths:
        with keras.name_scope(layer):
            ws.append(keras.Variable([0.0], name=name))
    optimizer = ck.SGD(jit_compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.apply([ops.array([3.0]), None, None], ws)
    assert optimizer.layer_norms() == pytest.approx({"a": 3.0, "b": math.nan}, nan_ok=True)


def test_every_name_of_log_statistics() -> None:
    """With windows of 2, one of them not finite: 12 batches are 5 updates and a skipped one."""
    y = Y.copy()
    y[2] = np.nan
    names = ("learning_rate", "gradient_norm", "clip_threshold", "clipped_share", "skipped", "clipped", "micro_steps")
    optimizer = ck.SGD(0.5, global_clipnorm=3.0, gradient_accumulation_steps=2, jit_compile=False)
    model = line(optimizer, run_eagerly=True)
    history = model.fit(
        np.ones_like(y), y, batch_size=1, epochs=2, shuffle=False, verbose=0, callbacks=[ck.LogStatistics(names=names)]
    ).history
    # Windows: 2.5, nan, 4.5 in each epoch.
    assert {name: history[name] for name in names} == {
        "learning_rate": [0.5, 0.5],
        "gradient_norm": pytest.approx([4.5, 4.5]),
        "clip_threshold": [3.0, 3.0],
        "clipped_share": pytest.approx([1 / 3, 1 / 3]),
        "skipped": [1.0, 2.0],
        "clipped": [1.0, 2.0],
        "micro_steps": [6.0, 12.0],
    }


@pytest.mark.parametrize("wrapped", [False, True])
def test_statistics_inside_a_loss_scale_optimizer(wrapped: bool) -> None:
    """The norm is of the gradient at its true scale."""
    optimizer: Any = ck.SGD(0.0, global_clipnorm=2.5, jit_compile=False)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    history = fit(optimizer, ck.ClippingStatistics(), ck.LogStatistics())
    assert history["gradient_norm"] == pytest.approx([6.0, 6.0])
    assert history["clipped_share"] == pytest.approx([4 / 6, 4 / 6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every: expected a whole number >= 1, received 0"),
        ({"every": 1.5}, "every: expected a whole number >= 1, received 1.5"),
        ({"per_layer": 1}, "per_layer: expected True or False, received 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        ck.ClippingStatistics(**arguments)


# Differentiating through updates -----------------------------------------------------------------------------

START, TARGET = np.array([1.0, -0.5, 0.5]), np.array([0.5, 1.5, -1.0])
META: dict[str, dict[str, Any]] = {
    "sgd": {"algorithm": "sgd"},
    "momentum": {"algorithm": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"algorithm": "adam", "epsilon": 1e-3},
    "clipped": {"algorithm": "adamw", "epsilon": 1e-3, "weight_decay": 0.1, "global_clipnorm": 1.0},
}


def gradient(p: Any) -> Any:
    """Of an inner loss that is not quadratic: Σ (p - target)⁴ / 4."""
    return (p - ops.convert_to_tensor(TARGET, "float32")) ** 3


def after_three(start: np.ndarray, rate: float, **options: Any) -> float:
    """The outer loss after three updates, in float64 NumPy."""
    reference = Reference({"w": start}, learning_rate=rate, **options)
    for _ in range(3):
        reference.apply({"w": (reference.w["w"] - TARGET) ** 3})
    return float(np.sum(reference.w["w"] ** 2))


def differences(**options: Any) -> tuple[float, list[float]]:
    """Derivatives of `after_three` by the rate and by each parameter."""
    h = 1e-5
    by_rate = (after_three(START, 0.1 + h, **options) - after_three(START, 0.1 - h, **options)) / (2 * h)
    by_start = [
        (after_three(START + h * e, 0.1, **options) - after_three(START - h * e, 0.1, **options)) / (2 * h)
        for e in np.eye(3)
    ]
    return by_rate, by_start


def differentiable(**options: Any) -> ck.Optimizer:
    optimizer = ck.Optimizer(learning_rate=0.1, differentiable=True, **options)
    optimizer.build([keras.Variable(START.astype("float32"), name="w")])
    return optimizer


@pytest.mark.parametrize("name", META)
def test_the_tape_goes_through_three_updates(name: str) -> None:
    """Derivatives by the rate and by the first parameters against differences in float64."""
    optimizer = differentiable(**META[name])
    state = optimizer.functional_state()
    rate, start = tf.constant(0.1), tf.constant(START, "float32")
    with tf.GradientTape() as tape:
        tape.watch([rate, start])
        params: Sequence[Any] = [start]
        for _ in range(3):
            params, state = optimizer.functional_step(params, [gradient(params[0])], state._replace(rate=rate))
        loss = ops.sum(params[0] ** 2)
    by_rate, by_start = differences(**META[name])
    found = tape.gradient(loss, [rate, start])
    assert loss.numpy() == pytest.approx(after_three(START, 0.1, **META[name]), rel=1e-5)
    assert found[0].numpy() == pytest.approx(by_rate, rel=1e-4)
    np.testing.assert_allclose(found[1].numpy(), by_start, rtol=1e-4, atol=1e-4)
    assert abs(by_rate) > 0.1 and min(map(abs, by_start)) > 1e-3  # there is something to find


@pytest.mark.parametrize("name", META)
def test_the_same_numbers_as_apply(name: str) -> None:
    """Five steps; and neither the variables nor the optimizer have changed by them."""
    optimizer, other = differentiable(**META[name]), ck.Optimizer(learning_rate=0.1, **META[name])
    w = keras.Variable(START.astype("float32"), name="w")
    before = values(optimizer)
    params, state = [ops.convert_to_tensor(START, "float32")], optimizer.functional_state()
    for t in range(5):
        g = gradient(params[0])
        params, state = optimizer.functional_step(params, [g], state)
        other.apply([g], [w])
        np.testing.assert_allclose(params[0].numpy(), w.numpy(), rtol=0, atol=1e-6)
        assert int(state.updates) == t + 1
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, values(optimizer), strict=True))


def test_a_missing_gradient_leaves_its_parameter() -> None:
    optimizer = ck.Optimizer("adam", 0.1, differentiable=True)
    optimizer.build([keras.Variable([1.0], name="a"), keras.Variable([1.0], name="b")])
    one = ops.array([1.0])
    params, _ = optimizer.functional_step([one, one], [one, None], optimizer.functional_state())
    assert [p.numpy().item() for p in params] == pytest.approx([0.9, 1.0])


@pytest.mark.parametrize(
    ("params", "grads", "message"),
    [
        ([(2,)], [()], r"functional_step: the gradient of w0 has shape \(\), the variable \(2,\)"),
        ([(2,)], [(2,), (2,)], "functional_step: 2 gradients for 1 variables"),
        ([(3,)], [(2,)], r"functional_step: expected parameters of shapes \[\(2,\)\], received \[\(3,\)\]"),
        ([], [(2,)], "received \\[\\]"),
    ],
)
def test_a_functional_step_of_other_shapes(params: Any, grads: Any, message: str) -> None:
    """Nothing is broadcast, and nothing left out."""
    optimizer = ck.Optimizer("sgd", differentiable=True)
    optimizer.build(variables((2,)))
    with pytest.raises(ck.ConfigError, match=message):
        optimizer.functional_step(list(map(ops.ones, params)), list(map(ops.ones, grads)), optimizer.functional_state())


@pytest.mark.parametrize("built", [False, True])
def test_it_has_to_be_asked_for(built: bool) -> None:
    optimizer, one = ck.Optimizer("sgd", differentiable=not built), ops.array([1.0])
    state = differentiable(algorithm="sgd").functional_state()
    if built:
        optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ck.ConfigError, match=r"functional_step: needs differentiable=True, and `optimizer.build"):
        optimizer.functional_step([one], [one], state)


# JAX ---------------------------------------------------------------------------------------------------------


def logged() -> dict[str, list[float]]:
    """History of a fit with all statistics, in 4 batches of 3 epochs; layers by number."""
    optimizer = ck.Optimizer("sgd", 0.05, clip_method="adaptive", adaptive_clipping={"percentile": 40})
    model = regressor(optimizer)
    callbacks = [
        ck.ClippingStatistics(every=2, per_layer=True),
        ck.LogStatistics(every=3, names=("learning_rate", "micro_steps", "clipped")),
    ]
    history = model.fit(*regression(), batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=callbacks).history
    for i, layer in enumerate(model.layers):
        history[f"layer {i}"] = history.pop("gradient_norm/" + layer.kernel.path.rsplit("/", 1)[0])
    return history


ON_JAX = """
import json
import jax
import numpy as np
import jax.numpy as jnp
from tests import test_analysis as t

def loss(rate, start, optimizer):
    params, state = [start], optimizer.functional_state()
    for _ in range(3):
        params, state = optimizer.functional_step(params, [t.gradient(params[0])], state._replace(rate=rate))
    return jnp.sum(params[0] ** 2)

derivatives = {}
for name, options in t.META.items():
    found = jax.grad(loss, argnums=(0, 1))(jnp.float32(0.1), jnp.array(t.START, "float32"), t.differentiable(**options))
    derivatives[name] = [float(found[0]), np.asarray(found[1]).tolist()]
print(json.dumps({"history": t.logged(), "derivatives": derivatives}))
"""


@pytest.fixture(scope="module")
def on_jax() -> dict[str, Any]:
    return run(ON_JAX, backend="jax")


def test_statistics_in_fit_on_jax(on_jax: dict[str, Any]) -> None:
    """There `fit` runs ahead and holds the state; at the end of each epoch the logs are as on TensorFlow."""
    here, there = logged(), on_jax["history"]
    assert here.keys() == there.keys() >= {"gradient_norm", "clip_threshold", "clipped_share", "layer 0", "layer 1"}
    for name, series in here.items():
        assert there[name] == pytest.approx(series, rel=1e-4), name
    assert there["micro_steps"] == [4.0, 8.0, 12.0]


@pytest.mark.parametrize("name", META)
def test_differentiating_on_jax(name: str, on_jax: dict[str, Any]) -> None:
    by_rate, by_start = differences(**META[name])
    found = on_jax["derivatives"][name]
    assert found[0] == pytest.approx(by_rate, rel=1e-4)
    np.testing.assert_allclose(found[1], by_start, rtol=1e-4, atol=1e-4)

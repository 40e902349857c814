"""The limit of each unit, relative to its weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import capibara_keras as ck
from tests.clipping.common import sgd, step
from tests.models import values


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
    data = json.loads((Path(__file__).parents[1] / "data" / "optimizers.json").read_text())
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

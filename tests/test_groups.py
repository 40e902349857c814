"""Rates, decay, clipping and algorithms per variable; layers that are unfrozen while training goes on."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import capibara_keras as ck
from tests.models import values
from tests.reference import Reference, norm
from tests.subprocess_runner import run


def named(*paths: str, shape: Sequence[int] = (2,)) -> list[keras.Variable]:
    """Variables with these paths, and random values."""
    rng, result = np.random.default_rng(0), []
    for path in paths:
        *scopes, name = path.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            result.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=name))
    assert [v.path for v in result] == list(paths)
    return result


def rates(variables: Sequence[keras.Variable], model: Any = None, **options: Any) -> dict[str, float]:
    """Path -> multiplier of the rate."""
    optimizer = ck.Optimizer("sgd", 1.0, jit_compile=False, **options)
    if model is not None:
        optimizer.attach(model=model)
    optimizer.build(variables)
    return {row.path: row.rate for row in optimizer.describe(print_fn=lambda text: None)}


def by_layer(found: Mapping[str, float], root: int = 1) -> dict[str, float]:
    """Layer -> multiplier, the same for all its variables."""
    result: dict[str, float] = {}
    for path, rate in found.items():
        layer = "/".join(path.split("/")[root:-1]) or path.split("/")[-1]
        assert result.setdefault(layer, rate) == rate, path
    return result


# Depths ------------------------------------------------------------------------------------------------------


class Attention(layers.Layer):
    """Parts and names as in timm."""

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.qkv, self.proj = layers.Dense(3 * dim, name="qkv"), layers.Dense(dim, name="proj")

    def build(self, shape: Any) -> None:
        self.qkv.build(shape)
        self.proj.build(shape)

    def call(self, x: Any) -> Any:
        q, k, v = ops.split(self.qkv(x), 3, axis=-1)
        return self.proj(ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, 1, 2))), v))


class Mlp(layers.Layer):
    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.fc1, self.fc2 = layers.Dense(2 * dim, "gelu", name="fc1"), layers.Dense(dim, name="fc2")

    def build(self, shape: Any) -> None:
        self.fc1.build(shape)
        self.fc2.build((*shape[:-1], 2 * shape[-1]))

    def call(self, x: Any) -> Any:
        return self.fc2(self.fc1(x))


class Block(layers.Layer):
    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(**options)
        self.norm1, self.attn = layers.LayerNormalization(name="norm1"), Attention(dim, name="attn")
        self.norm2, self.mlp = layers.LayerNormalization(name="norm2"), Mlp(dim, name="mlp")

    def build(self, shape: Any) -> None:
        for part in (self.norm1, self.attn, self.norm2, self.mlp):
            part.build(shape)

    def call(self, x: Any) -> Any:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(keras.Model):
    """Of patches; its blocks are numbered by Keras: block, block_1, …"""

    def __init__(self, blocks: int, dim: int = 2, **options: Any) -> None:
        super().__init__(**options)
        self.patch_embed = layers.Dense(dim, name="patch_embed")
        self.blocks = [Block(dim) for _ in range(blocks)]
        self.norm, self.head = layers.LayerNormalization(name="norm"), layers.Dense(3, name="head")
        self.dim = dim

    def build(self, shape: Any) -> None:
        self.cls_token = self.add_weight(shape=(1, 1, self.dim), name="cls_token")
        self.pos_embed = self.add_weight(shape=(1, shape[1] + 1, self.dim), name="pos_embed")
        self.patch_embed.build(shape)
        inner = (shape[0], shape[1] + 1, self.dim)
        for part in (*self.blocks, self.norm):
            part.build(inner)
        self.head.build((shape[0], self.dim))

    def call(self, x: Any) -> Any:
        x = self.patch_embed(x)
        x = ops.concatenate([ops.repeat(self.cls_token, ops.shape(x)[0], axis=0), x], axis=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit(blocks: int = 3) -> VisionTransformer:
    model = VisionTransformer(blocks, name="vit")
    model.build((None, 4, 6))
    return model


@pytest.mark.parametrize("attached", [False, True])
def test_layer_decay_of_a_vision_transformer_is_timms(attached: bool) -> None:
    """12 blocks, decay 0.75: stem 0.75^13, block i 0.75^(12 - i), the final norm as the last block, the head 1."""
    data = json.loads((Path(__file__).parent / "data" / "timm_vit.json").read_text())
    keras.utils.clear_session()  # blocks are numbered as in a new process
    model = vit(12)
    found = rates(model.trainable_variables, model if attached else None, layer_wise_lr_decay=data["layer_decay"])
    assert found == pytest.approx({f"vit/{path}": scale for path, scale in data["scales"].items()})


def test_the_rates_are_those_of_the_updates() -> None:
    """Gradient descent with gradients of 1 moves every weight by its multiplier."""
    model = vit(2)
    expected = rates(model.trainable_variables, layer_wise_lr_decay=0.5)
    optimizer = ck.Optimizer("sgd", 1.0, layer_wise_lr_decay=0.5, jit_compile=False)
    before = values(model.trainable_variables)
    optimizer.apply([ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for v, old in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_allclose(old - v.numpy(), expected[v.path], rtol=1e-5)
    assert set(expected.values()) == {0.125, 0.25, 0.5, 1.0}


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_wrapped_model_has_the_same_rates(depth: int, attached: bool) -> None:
    """`Sequential` adds its name in front of the paths, and nothing else."""
    expected = rates(vit().trainable_variables, layer_wise_lr_decay=0.5)
    model = vit()
    for i in range(depth):
        model = keras.Sequential([keras.Input((4, 6)), model], name=f"wrapper{i}")
    found = rates(model.trainable_variables, model if attached else None, layer_wise_lr_decay=0.5)
    assert list(found.values()) == pytest.approx(list(expected.values()))
    assert len(set(found.values())) == 5


@pytest.mark.parametrize("attached", [False, True])
def test_without_blocks_each_layer_is_a_level(attached: bool) -> None:
    """The last is the head; a norm belongs to the layer before it."""
    mlp = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="first"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(4, name="second"),
            layers.LayerNormalization(name="ln"),
            layers.Dropout(0.1),
            layers.Dense(2, name="head"),
        ]
    )
    found = rates(mlp.trainable_variables, mlp if attached else None, layer_wise_lr_decay=0.5)
    assert by_layer(found) == {"first": 0.25, "bn": 0.25, "second": 0.5, "ln": 0.5, "head": 1.0}

    cnn = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(2, 3),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Conv2D(2, 3),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    found = rates(cnn.trainable_variables, cnn if attached else None, layer_wise_lr_decay=0.5)
    assert list(by_layer(found).values()) == [0.125, 0.25, 0.25, 0.5, 1.0]


def test_a_single_layer_is_the_head() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert set(rates(model.trainable_variables, layer_wise_lr_decay=0.5).values()) == {1.0}


@pytest.mark.parametrize("attached", [False, True])
def test_rates_stay_while_layers_are_unfrozen_from_the_top(attached: bool) -> None:
    """Depth counts from the head: with 0, 1, 2 or 3 blocks in training, each layer has its final rate."""
    model = vit(3)
    final = rates(model.trainable_variables, model if attached else None, layer_wise_lr_decay=0.5)
    model.patch_embed.trainable = model.cls_token.trainable = model.pos_embed.trainable = False
    for count in range(4):
        for i, block in enumerate(model.blocks):
            block.trainable = i >= 3 - count
        found = rates(model.trainable_variables, model if attached else None, layer_wise_lr_decay=0.5)
        assert len(found) == 4 + 12 * count
        assert found == {path: final[path] for path in found}


def test_embeddings_are_depth_0_wherever_they_are() -> None:
    """Of an encoder and of a decoder."""
    paths = ["token_embedding/embeddings", "encoder/kernel", "position_embedding/embeddings", "decoder/kernel"]
    found = rates(named(*paths, "head/kernel", shape=(2, 2)), layer_wise_lr_decay=0.5)
    assert by_layer(found, root=0) == {
        "token_embedding": 0.125,
        "encoder": 0.25,
        "position_embedding": 0.125,
        "decoder": 0.5,
        "head": 1.0,
    }


def nested() -> keras.Model:
    """A backbone of two layers in a functional model with a head."""
    parts = [keras.Input((4,)), layers.Dense(4, name="l1"), layers.Dense(4, name="l2")]
    backbone = keras.Sequential(parts, name="backbone")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(backbone(inputs)))


def test_a_nested_model_is_no_layer() -> None:
    """The model tells: without it, the paths of the backbone look like those of one layer with parts."""
    model = nested()
    found = rates(model.trainable_variables, model, layer_wise_lr_decay=0.5)
    assert by_layer(found, root=0) == {"backbone/l1": 0.25, "backbone/l2": 0.5, "head": 1.0}
    blind = rates(model.trainable_variables, layer_wise_lr_decay=0.5)
    assert by_layer(blind, root=0) == {"backbone/l1": 0.5, "backbone/l2": 0.5, "head": 1.0}


def test_the_model_counts_also_where_it_comes_late() -> None:
    """After `build`, `describe` and an update without it."""
    model = nested()
    optimizer = ck.Optimizer("sgd", 1.0, layer_wise_lr_decay=0.5, jit_compile=False)
    optimizer.build(model.trainable_variables)
    ones = [ops.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(ones)
    optimizer.attach(model=model)
    before = values(model.trainable_variables)
    optimizer.apply(ones)
    steps = [(old - new).flat[0] for old, new in zip(before, values(model.trainable_variables), strict=True)]
    assert steps == pytest.approx([0.25, 0.25, 0.5, 0.5, 1.0, 1.0], rel=1e-5)
    assert optimizer.describe(print_fn=lambda text: None)[0].rate == 0.25


def test_depths_given_by_the_user() -> None:
    """Patterns as in groups, the first that matches; what matches none is the head, one deeper than the rest."""
    paths = ["m/stem/kernel", "m/left/kernel", "m/right_1/kernel", "m/out/kernel", "m/out/bias"]
    depths = {"stem": 0, "re:left|right": 3, "right": 7}
    assert list(rates(named(*paths), layer_wise_lr_decay=0.5, layer_depths=depths).values()) == [
        0.5**8,
        0.5**5,
        0.5**5,
        1.0,
        1.0,
    ]


def test_a_decay_of_1_changes_nothing() -> None:
    assert set(rates(vit().trainable_variables, layer_wise_lr_decay=1.0).values()) == {1.0}


# Patterns ----------------------------------------------------------------------------------------------------

PATHS = [
    "model/embedding/embeddings",
    "model/encoder/head/kernel",
    "model/encoder_1/multi_head_attention/query/kernel",
    "model/encoder_10/dense_2/kernel",
    "model/head/kernel",
    "model/head_1/bias",
    "model/header/kernel",
]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("head", [1, 4, 5]),  # not multi_head_attention, not header
        ("head_1", [5]),
        ("encoder", [1, 2, 3]),
        ("encoder_1", [2]),  # not encoder_10
        ("encoder/head", [1]),
        ("head/kernel", [1, 4]),
        ("head/bias", [5]),
        ("encoder/dense/kernel", [3]),
        ("encoder/kernel", []),  # in a row
        ("dense", [3]),
        ("kernel", [1, 2, 3, 4, 6]),
        ("model", [0, 1, 2, 3, 4, 5, 6]),
        ("Head", []),
        ("he.d", []),
        ("/head/", [1, 4, 5]),
        ("re:head", [1, 2, 4, 5, 6]),
        ("re:head/kernel$", [1, 4]),
        ("re:encoder(_1)?/", [1, 2]),
        ("re:^model/head", [4, 5, 6]),
        ("re:.*", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.filterwarnings("ignore:patterns that match no variable")
def test_patterns(pattern: str, matching: list[int]) -> None:
    """A word is a whole segment, with or without a number; words joined by "/" are segments in a row; `re:` is free."""
    found = rates(named(*PATHS), differential_learning_rates={pattern: 2.0})
    assert [i for i, rate in enumerate(found.values()) if rate == 2.0] == matching
    assert all(rate in (1.0, 2.0) for rate in found.values())


def test_the_first_match_wins() -> None:
    differential = {"head/bias": 5.0, "head": 2.0, "re:.": 3.0}
    assert list(rates(named(*PATHS), differential_learning_rates=differential).values()) == [3, 2, 3, 3, 2, 5, 3]


def test_the_rates_of_the_document() -> None:
    """Fine-tuning: layer-wise decay times differential rates, for a model of two encoder blocks."""
    options = {
        "algorithm": "adam",
        "learning_rate": 5e-5,
        "layer_wise_lr_decay": 0.95,
        "differential_learning_rates": {"embedding": 0.1, "encoder": 1.0, "head": 2.0},
    }
    parts = ("attention/kernel", "attention/bias", "dense/kernel", "dense/bias")
    paths = [
        "embedding/embeddings",
        *(f"encoder/{p}" for p in parts),
        *(f"encoder_1/{p}" for p in parts),
        "head/kernel",
    ]
    optimizer = ck.Optimizer(jit_compile=False, **options)
    ws = named(*paths, shape=(2, 2))
    optimizer.build(ws)
    found = [row.rate for row in optimizer.describe(print_fn=lambda text: None)]
    expected = [0.1 * 0.95**3, *[0.95**2] * 4, *[0.95] * 4, 2.0]
    assert found == pytest.approx(expected)
    before = values(ws)
    optimizer.apply([ops.ones(w.shape) for w in ws], ws)  # Adam's first step is the rate
    for old, w, factor in zip(before, values(ws), expected, strict=True):
        np.testing.assert_allclose(old - w, 5e-5 * factor, rtol=2e-2)  # the weights' rounding is 1e-7


def test_a_rate_of_zero_freezes_a_variable() -> None:
    """Decay included, bit for bit."""
    ws = named("a/kernel", "b/kernel")
    optimizer = ck.Optimizer("adamw", 0.1, weight_decay=0.1, differential_learning_rates={"a": 0}, jit_compile=False)
    before = values(ws)
    for _ in range(3):
        optimizer.apply([ops.ones(2), ops.ones(2)], ws)
    assert ws[0].numpy().tobytes() == before[0].tobytes()
    assert (np.abs(ws[1].numpy() - before[1]) > 0.2).all()


@pytest.mark.parametrize(
    "options",
    [
        {"differential_learning_rates": {"head": 2.0, "haed": 3.0}},
        {"groups": [{"pattern": "haed", "rate": 3.0}]},
        {"layer_wise_lr_decay": 0.9, "layer_depths": {"embedding": 0, "haed": 1}},
    ],
)
def test_a_pattern_that_matches_nothing_is_named(options: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match=r"patterns that match no variable: 'haed'\. Variables: model/embedding"):
        rates(named(*PATHS), **options)


def test_patterns_for_frozen_layers_are_no_mistake() -> None:
    """Where the model is known; they will match when the layers are unfrozen."""
    model = nested()
    model.layers[1].trainable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rates(model.trainable_variables, model, differential_learning_rates={"l1": 0.5, "head": 2.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"differential_learning_rates": {"a": -1.0}}, r"differential_learning_rates\['a'\]: expected a number >= 0"),
        ({"differential_learning_rates": {"a": "2"}}, r"differential_learning_rates\['a'\]: expected a number >= 0"),
        ({"differential_learning_rates": {"": 2.0}}, "expected a part of a variable's path"),
        ({"differential_learning_rates": {3: 2.0}}, "expected a part of a variable's path"),
        ({"differential_learning_rates": {"re:(": 2.0}}, r"'re:\(' is not a regular expression"),
        ({"differential_learning_rates": [1.0]}, "differential_learning_rates: expected a dictionary"),
        ({"layer_wise_lr_decay": 0.0}, r"layer_wise_lr_decay: expected a number in \(0, 1\], received 0.0"),
        ({"layer_wise_lr_decay": 1.5}, r"layer_wise_lr_decay: expected a number in \(0, 1\], received 1.5"),
        ({"layer_depths": {"a": -1}}, r"layer_depths\['a'\]: expected a whole number >= 0, received -1"),
        ({"layer_depths": 3}, "layer_depths: expected a dictionary"),
        ({"groups": [{"rate": 2.0}]}, "groups: expected dictionaries with a 'pattern'"),
        ({"groups": [{"pattern": "a", "rat": 2.0}]}, "option of group 'a' 'rat'. Did you mean 'rate'"),
        ({"groups": [{"pattern": "a", "rate": -2.0}]}, "rate: expected a number >= 0, received -2.0"),
        ({"groups": [{"pattern": "a", "weight_decay": -2.0}]}, "weight_decay: expected a number >= 0, received -2.0"),
        ({"groups": [{"pattern": "a", "algorithm": "adma"}]}, "unknown algorithm 'adma'. Did you mean 'adam"),
        ({"groups": [{"pattern": "a", "momentum": 0.9}]}, "option of group 'a' 'momentum'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        ck.Optimizer("adam", **options)


# Groups ------------------------------------------------------------------------------------------------------

SHAPES = {"body/kernel": (3, 2), "body/bias": (2,), "head/kernel": (2, 2), "head/bias": (2,)}


def problem(updates: int, seed: int = 0) -> tuple[list[keras.Variable], list[dict[str, np.ndarray]]]:
    """Variables, and gradients by path, some of them large."""
    rng, ws = np.random.default_rng(seed), []
    for path, shape in SHAPES.items():
        with keras.name_scope(path.split("/")[0]):
            ws.append(keras.Variable(rng.normal(size=shape).astype("float32"), name=path.split("/")[1]))
    sizes = 10 ** rng.uniform(-1, 1, updates)
    return ws, [{p: (s * rng.normal(size=shape)).astype("float32") for p, shape in SHAPES.items()} for s in sizes]


def apply(optimizer: Any, ws: Sequence[keras.Variable], grads: Iterable[Mapping[str, np.ndarray]]) -> None:
    for g in grads:
        optimizer.apply([ops.convert_to_tensor(g[w.path]) for w in ws], ws)


def separate(
    start: Mapping[str, np.ndarray],
    grads: Iterable[Mapping[str, np.ndarray]],
    groups: Mapping[tuple[str, ...], dict[str, Any]],
    limit: float | None = None,
) -> dict[str, np.ndarray]:
    """torch's parameter groups, in float64: an optimizer each, after one clipping of the norm over all."""
    parts = {paths: Reference({p: start[p] for p in paths}, **options) for paths, options in groups.items()}
    for g in grads:
        scale = 1.0 if limit is None else min(1.0, limit / norm(*(x.astype("float64") for x in g.values())))
        for paths, part in parts.items():
            part.apply({p: scale * g[p].astype("float64") for p in paths})
    return {p: w for part in parts.values() for p, w in part.w.items()}


@pytest.mark.parametrize("jit_compile", [True, False])
def test_groups_of_adamw_are_torchs(jit_compile: bool) -> None:
    """20 updates: rates and decays of their own, one norm over all."""
    ws, grads = problem(20)
    start = {w.path: w.numpy() for w in ws}
    optimizer = ck.Optimizer(
        "adamw",
        0.01,
        epsilon=1e-6,
        weight_decay=0.1,
        global_clipnorm=2.0,
        groups=[{"pattern": "bias", "weight_decay": 0.0}, {"pattern": "head", "rate": 3.0, "weight_decay": 0.5}],
        differential_learning_rates={"head": 2.0},
        jit_compile=jit_compile,
    )
    apply(optimizer, ws, grads)
    common = {"algorithm": "adamw", "epsilon": 1e-6}
    expected = separate(
        start,
        grads,
        {
            ("body/kernel",): common | {"learning_rate": 0.01, "weight_decay": 0.1},
            ("body/bias",): common | {"learning_rate": 0.01, "weight_decay": 0.0},
            ("head/kernel",): common | {"learning_rate": 0.06, "weight_decay": 0.5},
            ("head/bias",): common | {"learning_rate": 0.02, "weight_decay": 0.0},  # the first group, rate 1, times 2
        },
        limit=2.0,
    )
    for w in ws:
        np.testing.assert_allclose(w.numpy(), expected[w.path], rtol=0, atol=1e-6)
    total = norm(*(g.astype("float64") for g in grads[-1].values()))
    assert optimizer.statistics().gradient_norm == pytest.approx(total, rel=1e-6)


def test_groups_with_algorithms_of_their_own() -> None:
    """Adam for the body, SGD with momentum for the head, with state and decay each; 20 updates, one norm."""
    ws, grads = problem(20)
    start = {w.path: w.numpy() for w in ws}
    head = {"pattern": "head", "algorithm": "sgd", "momentum": 0.9, "nesterov": True, "rate": 0.5}
    optimizer = ck.Optimizer(
        "adam", 0.01, weight_decay=0.1, epsilon=1e-6, groups=[head], global_clipnorm=2.0, jit_compile=False
    )
    apply(optimizer, ws, grads)
    sgd = {"algorithm": "sgd", "learning_rate": 0.005, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    adam = {"algorithm": "adam", "learning_rate": 0.01, "weight_decay": 0.1, "epsilon": 1e-6}
    expected = separate(
        start, grads, {("body/kernel", "body/bias"): adam, ("head/kernel", "head/bias"): sgd}, limit=2.0
    )
    for w in ws:
        np.testing.assert_allclose(w.numpy(), expected[w.path], rtol=0, atol=1e-6)
    described = optimizer.describe(print_fn=lambda text: None)
    assert [(row.algorithm, row.state_bytes) for row in described] == [
        ("Adam", 6 * 8),
        ("Adam", 2 * 8),
        ("SGD", 4 * 4),
        ("SGD", 2 * 4),
    ]


def test_a_bad_gradient_skips_all_groups() -> None:
    ws, grads = problem(3)
    optimizer = ck.Optimizer(
        "adam", groups=[{"pattern": "head", "algorithm": "sgd", "momentum": 0.9}], jit_compile=False
    )
    apply(optimizer, ws, grads[:2])
    before = [v.tobytes() for v in values([*ws, *(s for row in optimizer._state.slots for s in row)])]
    grads[2]["head/bias"][0] = np.nan
    apply(optimizer, ws, grads[2:])
    assert [v.tobytes() for v in values([*ws, *(s for row in optimizer._state.slots for s in row)])] == before


@pytest.mark.parametrize(
    ("group", "others", "expected"),
    [
        ({"clipvalue": 0.5}, {}, {"body": [3.0, 4.0], "head": [0.5, 0.5]}),
        ({"clipnorm": 6.5}, {}, {"body": [3.0, 4.0], "head": [2.5, 6.0]}),
        # One norm over all groups, 13.93: of the group's variables it is the limit, or of the others'.
        ({"global_clipnorm": 194**0.5 / 2}, {}, {"body": [3.0, 4.0], "head": [2.5, 6.0]}),
        ({"clipnorm": 6.5}, {"global_clipnorm": 194**0.5 / 2}, {"body": [1.5, 2.0], "head": [2.5, 6.0]}),
        ({}, {"global_clipnorm": 194**0.5 / 2}, {"body": [1.5, 2.0], "head": [2.5, 6.0]}),
        (
            {"clip_method": "agc", "clip_coeff": 0.1, "clip_output_layer": True},
            {"clipvalue": 1.0},
            {"body": [1.0, 1.0], "head": [0.1 * 2**0.5 * 5 / 13, 0.1 * 2**0.5 * 12 / 13]},
        ),
    ],
)
def test_clipping_of_a_group(group: dict[str, Any], others: dict[str, Any], expected: dict[str, list[float]]) -> None:
    """Gradients (3, 4) and (5, 12) of weights (1, 1): what the weights move by."""
    ws = named("body/kernel", "head/kernel")
    for w in ws:
        w.assign([1.0, 1.0])
    optimizer = ck.Optimizer("sgd", 1.0, groups=[{"pattern": "head", **group}], jit_compile=False, **others)
    optimizer.apply([ops.array([3.0, 4.0]), ops.array([5.0, 12.0])], ws)
    for w in ws:
        assert (1 - w.numpy()) == pytest.approx(expected[w.path.split("/")[0]], rel=1e-5)
    assert optimizer.statistics().clipped


def test_one_schedule_for_all_groups() -> None:
    ws = named("body/kernel", "head/kernel")
    optimizer = ck.Optimizer(
        "sgd",
        1.0,
        groups=[{"pattern": "head", "rate": 10.0}],
        scheduler_type="linear_with_warmup",
        total_steps=4,
        jit_compile=False,
    )
    before = values(ws)
    for _ in range(4):
        optimizer.apply([ops.ones(2), ops.ones(2)], ws)
    for old, w, factor in zip(before, ws, (1, 10), strict=True):
        np.testing.assert_allclose(old - w.numpy(), factor * (1 + 0.75 + 0.5 + 0.25), rtol=1e-5)


def test_groups_survive_the_config() -> None:
    """As dictionaries or `Group`s; the copy makes the same updates."""
    options: dict[str, Any] = {
        "weight_decay": 0.1,
        "groups": [
            {"pattern": "bias", "weight_decay": 0.0, "clip_method": "value", "clip_value": 0.5},
            {
                "pattern": "re:^head",
                "rate": 2.0,
                "algorithm": "sgd",
                "momentum": 0.9,
                "nesterov": True,
                "clipnorm": 1.0,
            },
            ck.Group("body", rate=0.5),
        ],
        "layer_wise_lr_decay": 0.9,
        "layer_depths": {"body": 0},
        "differential_learning_rates": {"head": 3.0},
        "jit_compile": False,
    }
    one = ck.Optimizer("adam", 0.01, **options)
    two = ck.Optimizer.from_config(json.loads(json.dumps(one.get_config())))
    three = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(one))
    results = []
    for optimizer in (one, two, three):
        ws, grads = problem(3)
        apply(optimizer, ws, grads)
        results.append([w.tobytes() for w in values(ws)])
        assert optimizer.get_config() == one.get_config()
    assert results[0] == results[1] == results[2]


def test_the_state_of_groups_survives_saving(tmp_path: Path) -> None:
    """Into another process' model of the same structure: bit for bit."""

    def model() -> keras.Model:
        keras.utils.set_random_seed(0)
        one = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="body"), layers.Dense(2, name="head")])
        groups = [{"pattern": "head", "algorithm": "sgd", "momentum": 0.9}]
        one.compile(ck.Optimizer("adam", 0.01, groups=groups, jit_compile=False), "mse", run_eagerly=True)
        return one

    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(4, 4)), rng.normal(size=(4, 2))) for _ in range(6)]
    one, two = model(), model()
    for batch in batches[:3]:
        one.train_on_batch(*batch)
    one.save_weights(tmp_path / "x.weights.h5")
    two.load_weights(tmp_path / "x.weights.h5")
    for batch in batches[3:]:
        one.train_on_batch(*batch)
        two.train_on_batch(*batch)
    for a, b in zip(values(one), values(two), strict=True):
        assert a.tobytes() == b.tobytes()


# describe() --------------------------------------------------------------------------------------------------


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, with a line per variable, totals, and returned as rows."""
    ws, _ = problem(0)
    optimizer = ck.Optimizer(
        "adam",
        weight_decay=0.1,
        use_ema=True,
        gradient_accumulation_steps=2,
        groups=[{"pattern": "bias", "weight_decay": 0.0, "algorithm": "sgd"}],
        differential_learning_rates={"head": 2.5},
    )
    optimizer.build(ws)
    rows = optimizer.describe()
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "variable     shape   group  algorithm  rate x  decay  state bytes",
        "body/kernel  (3, 2)         Adam            1    0.1           96",  # 6 x 4 x (m, v, average, window)
        "body/bias    (2,)    bias   SGD             1      0           16",  # 2 x 4 x (average, window)
        "head/kernel  (2, 2)         Adam          2.5    0.1           64",
        "head/bias    (2,)    bias   SGD           2.5      0           16",
        "4 variables, 14 parameters, 192 bytes of state",
    ]
    assert [row.path for row in rows] == list(SHAPES)
    assert [row.shape for row in rows] == list(SHAPES.values())
    assert [row.group for row in rows] == ["", "bias", "", "bias"]
    assert [row["rate"] for row in rows] == [1.0, 1.0, 2.5, 2.5]
    assert [row.weight_decay for row in rows] == [0.1, 0.0, 0.1, 0.0]
    assert {row.dtype for row in rows} == {"float32"}


def test_the_table_shows_exclusions_from_decay() -> None:
    ws, _ = problem(0)
    optimizer = ck.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(ws)
    assert [row.weight_decay for row in optimizer.describe(lambda text: None)] == [0.1, 0.0, 0.1, 0.0]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"algorithm": "sgd"}, 0),
        ({"algorithm": "sgd", "momentum": 0.9}, 4),
        ({"algorithm": "adam"}, 8),
        ({"algorithm": "adam", "amsgrad": True}, 12),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_bytes_of_state(options: dict[str, Any], size: int, dtype: str) -> None:
    """Extra bytes per parameter; the state of half-precision variables is kept in float32."""
    w = keras.Variable(np.zeros((5, 3)), dtype=dtype, name="w")
    optimizer = ck.Optimizer(**options)
    optimizer.build([w])
    (row,) = optimizer.describe(lambda text: None)
    assert row.state_bytes == 15 * size * (2 if dtype == "float64" else 1)
    assert row.dtype == dtype


def test_there_is_no_table_before_build() -> None:
    with pytest.raises(ck.ConfigError, match=r"describe: call `optimizer.build\(variables\)` first"):
        ck.Adam().describe()


# Gradual unfreezing ------------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y2 = X[:, :2] * [2.0, -1.0]

MODES: dict[str, dict[str, Any]] = {"graph": {}, "eager": {"run_eagerly": True}, "XLA": {"jit_compile": True}}


def tuned(optimizer: Any, frozen: bool = True, **mode: Any) -> keras.Model:
    """Two layers, the first of them frozen, with the same weights each time."""
    keras.utils.set_random_seed(0)
    parts = [keras.Input((4,)), layers.Dense(4, "tanh", name="a"), layers.Dense(2, name="b")]
    model = keras.Sequential(parts, name="m")
    freeze(model, optimizer, frozen, **mode)
    return model


def freeze(model: keras.Model, optimizer: Any, frozen: bool, **mode: Any) -> None:
    """Freeze or unfreeze the first layer, and compile with the same optimizer again."""
    model.layers[0].trainable = not frozen
    model.compile(optimizer, "mse", **mode)


def fit(model: keras.Model, epochs: int, attached: bool) -> None:
    """One batch per epoch; no warning may come up."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(X, Y2, batch_size=8, epochs=epochs, verbose=0, callbacks=[ck.Attach()] * attached)


def state(optimizer: Any) -> dict[str, bytes]:
    """Name -> value of the optimizer's variables."""
    return {v.name: np.array(ops.convert_to_numpy(v)).tobytes() for v in optimizer.variables}


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_unfreezing_keeps_the_state_of_the_others(mode: str, attached: bool) -> None:
    """The first layer comes in after 3 of 6 updates, with a rate of 0: the second does not notice, bit for bit."""
    results = []
    for unfrozen in (False, True):
        optimizer = ck.Adam(0.05, differential_learning_rates={"a": 0.0}, jit_compile=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the pattern matches nothing as yet
            model = tuned(optimizer, **MODES[mode])
            model.fit(X, Y2, batch_size=8, epochs=3, verbose=0, callbacks=[ck.Attach()] * attached)
        first = values(model.layers[0])
        freeze(model, optimizer, not unfrozen, **MODES[mode])
        fit(model, 3, attached)
        results.append([w.tobytes() for w in values(model)])
        assert int(optimizer.iterations) == 6
        assert [a.tobytes() for a in values(model.layers[0])] == [a.tobytes() for a in first]
    assert results[0] == results[1]
    moved = {v.name for v in optimizer.variables if np.any(ops.convert_to_numpy(v) != 0)}
    assert {"m_a_kernel_m", "m_b_kernel_m"} <= moved  # the first layer does have moments now


@pytest.mark.parametrize(
    ("mode", "attached"), [("graph", True), ("graph", False), ("eager", True), ("eager", False), ("XLA", False)]
)
def test_unfreezing_trains_the_new_layer(mode: str, attached: bool) -> None:
    """Adam's first step is the rate, also at the fourth update: no warning, and no trace of an older one."""
    optimizer = ck.Adam(0.05, jit_compile=False)
    model = tuned(optimizer, **MODES[mode])
    fit(model, 3, attached)
    before = values(model.layers[0])
    freeze(model, optimizer, False, **MODES[mode])
    fit(model, 1, attached)
    for old, new in zip(before, values(model.layers[0]), strict=True):
        np.testing.assert_allclose(np.abs(new - old), 0.05, rtol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "adam", "weight_decay": 0.1},
        {"algorithm": "adam", "amsgrad": True, "use_ema": True},
        {"algorithm": "sgd", "momentum": 0.9, "dampening": 0.5},
        {"algorithm": "adam", "gradient_accumulation_steps": 2},
    ],
)
def test_new_variables_count_from_their_own_first_update(options: dict[str, Any]) -> None:
    """What comes in after five updates goes the way of a fresh optimizer, bit for bit; the old goes on."""
    rng = np.random.default_rng(0)
    k = options.get("gradient_accumulation_steps", 1)
    grads = [rng.normal(size=(2, 3)).astype("float32") for _ in range(10 * k)]
    a, b, a_alone, b_alone = (keras.Variable([1.0, -2.0, 3.0], name=name) for name in ("a", "b", "a", "b"))
    together, fresh, other = (ck.Optimizer(learning_rate=0.1, jit_compile=False, **options) for _ in range(3))
    for i, g in enumerate(grads):
        ga, gb = map(ops.convert_to_tensor, g)
        other.apply([gb], [b_alone])
        if i < 5 * k:
            together.apply([gb], [b])
        else:
            together.apply([ga, gb], [a, b])
            fresh.apply([ga], [a_alone])
    assert int(together.iterations) == 10
    if options.get("use_ema"):
        for optimizer, ws in ((together, [a, b]), (fresh, [a_alone]), (other, [b_alone])):
            optimizer.finalize_variable_values(ws)
    assert b.numpy().tobytes() == b_alone.numpy().tobytes()
    assert a.numpy().tobytes() == a_alone.numpy().tobytes()


def test_freezing_again_and_unfreezing_again_goes_on_with_the_old_state() -> None:
    """While it is frozen, the layer's weights and moments stay."""
    optimizer = ck.Adam(0.05, jit_compile=False)
    model = tuned(optimizer, run_eagerly=True)
    fit(model, 2, True)
    freeze(model, optimizer, False, run_eagerly=True)
    fit(model, 2, True)
    kept = {name: v for name, v in state(optimizer).items() if name.startswith("m_a_")}
    weights = [w.tobytes() for w in values(model.layers[0])]
    assert len(kept) == 4  # m and v of kernel and bias
    freeze(model, optimizer, True, run_eagerly=True)
    fit(model, 2, True)
    assert [w.tobytes() for w in values(model.layers[0])] == weights
    assert {name: v for name, v in state(optimizer).items() if name in kept} == kept
    freeze(model, optimizer, False, run_eagerly=True)
    optimizer.build(model.trainable_variables)
    assert {name: v for name, v in state(optimizer).items() if name in kept} == kept
    fit(model, 1, True)
    assert {name for name, v in state(optimizer).items() if name in kept and v != kept[name]} == set(kept)
    assert int(optimizer.iterations) == 7


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("how", ["weights", "model"])
def test_saving_after_unfreezing(how: str, again: bool, tmp_path: Path) -> None:
    """A new model goes on bit for bit: when the layer came in is saved too. Also if it is frozen again (`again`)."""
    optimizer = ck.Adam(0.05, jit_compile=False)
    model = tuned(optimizer)
    fit(model, 3, True)
    freeze(model, optimizer, False)
    fit(model, 2, True)
    if again:
        freeze(model, optimizer, True)
        fit(model, 1, True)
    if how == "weights":
        model.save_weights(tmp_path / "m.weights.h5")
        fit(model, 2, True)
        other = tuned(ck.Adam(0.05, jit_compile=False), frozen=again)
        other.load_weights(tmp_path / "m.weights.h5")
    else:
        model.save(tmp_path / "m.keras")
        fit(model, 2, True)
        other = keras.saving.load_model(tmp_path / "m.keras")
    fit(other, 2, True)
    assert [w.tobytes() for w in values(other)] == [w.tobytes() for w in values(model)]
    assert int(other.optimizer.iterations) == int(optimizer.iterations)


def test_a_window_that_is_open_stays_open() -> None:
    """One micro-batch before unfreezing, none after: what it brought is used."""
    a, b = named("a", "b", shape=(1,))
    b.assign([0.0])
    optimizer = ck.SGD(1.0, gradient_accumulation_steps=3, jit_compile=False)
    optimizer.apply([ops.array([6.0])], [b])
    optimizer.build([a, b])
    assert optimizer.pending_micro_batches == 1
    optimizer.flush()
    assert b.numpy().item() == -6.0


def test_histories_of_norms_go_on() -> None:
    """Percentile 0: the lowest norm so far, of all variables together or of each by itself, in a new order too."""
    for each, expected in ((True, -2.0), (False, -1 - 1 / 2**0.5)):
        a, b = named("a", "b", shape=(1,))
        b.assign([0.0])
        options = {"adaptive_clipping": {"percentile": 0}, "per_parameter_clipping": each}
        optimizer = ck.SGD(1.0, clip_method="adaptive", jit_compile=False, **options)
        optimizer.apply([ops.array([1.0])], [b])
        optimizer.apply([ops.array([5.0]), ops.array([5.0])], [a, b])
        assert b.numpy().item() == pytest.approx(expected, rel=1e-6)


def test_taking_turns() -> None:
    """One layer is frozen and another unfrozen at once: as many variables as before, and others."""
    a, b, c = named("a", "b", "c", shape=(1,))
    optimizer = ck.SGD(
        1.0,
        clip_method="adaptive",
        adaptive_clipping={"percentile": 0},
        per_parameter_clipping=True,
        jit_compile=False,
    )
    optimizer.apply([ops.array([1.0]), ops.array([2.0])], [a, b])
    optimizer.build([b, c])
    before = values([b, c])
    optimizer.apply([ops.array([9.0]), ops.array([9.0])], [b, c])
    steps = [(old - new).item() for old, new in zip(before, values([b, c]), strict=True)]
    assert steps == pytest.approx([2.0, 9.0], rel=1e-5)  # b's lowest norm is 2, not a's 1; c is new
    assert optimizer.layer_norms() == pytest.approx({"b": 9.0, "c": 9.0})


def test_variables_of_another_model_are_refused() -> None:
    """Not one of them is known: that is a mistake, not unfreezing."""
    a, b = named("a", "b")
    optimizer = ck.Adam(jit_compile=False)
    optimizer.apply([ops.ones(2)], [a])
    with pytest.raises(
        ck.ConfigError, match=r"none of the variables \['b'\] is one that this optimizer was built with"
    ):
        optimizer.apply([ops.ones(2)], [b])


ON_JAX = """
import json
import numpy as np
import keras
import capibara_keras as ck
from tests import test_groups as t

def run(rate, unfrozen, attached=True):
    optimizer = ck.Adam(0.05, differential_learning_rates={"re:.*a/": rate})
    model = t.tuned(optimizer)
    callbacks = [ck.Attach()] * attached
    model.fit(t.X, t.Y2, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)
    first = t.values(model.layers[0])
    t.freeze(model, optimizer, not unfrozen)
    model.fit(t.X, t.Y2, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
    step = max(np.abs(np.abs(a - b) - 0.05).max() for a, b in zip(first, t.values(model.layers[0])))
    model.fit(t.X, t.Y2, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
    return [w.tobytes() for w in t.values(model)], float(step), int(optimizer.iterations)

try:
    run(1.0, True, attached=False)
    alone = "no error"
except ValueError as error:
    alone = str(error)
first, second = run(0.0, False), run(0.0, True)
print(json.dumps({"same": first[0] == second[0], "step": run(1.0, True)[1], "updates": second[2], "alone": alone}))
"""


@pytest.mark.slow
def test_unfreezing_on_jax() -> None:
    """With a callback as on TensorFlow. Without one it is Keras' error: its step takes a fixed list of variables."""
    found = run(ON_JAX, backend="jax")
    assert found["same"]
    assert found["step"] < 1e-4
    assert found["updates"] == 6
    assert "whereas the optimizer was built with 2 variables" in found["alone"]

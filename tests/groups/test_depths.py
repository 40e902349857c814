"""How deep layers lie, and the rates that follow from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import capibara_keras as ck
from tests.groups.common import by_layer, named, nested, rates
from tests.models import values
from tests.thinning import thinned


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


@pytest.mark.parametrize("attached", thinned([True, False], 2))
def test_layer_decay_of_a_vision_transformer_is_timms(attached: bool) -> None:
    """12 blocks, decay 0.75: stem 0.75^13, block i 0.75^(12 - i), the final norm as the last block, the head 1."""
    data = json.loads((Path(__file__).parents[1] / "data" / "timm_vit.json").read_text())
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

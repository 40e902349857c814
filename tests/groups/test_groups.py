"""Groups of variables: rates, decay, clipping and algorithms of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import capibara_keras as ck
from tests.groups.common import named, problem
from tests.models import values
from tests.reference import Reference, norm


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

"""Options from torch, Hugging Face and tf-models, against the formulas of their sources."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.migration import OverlaidWarmup, from_hugging_face, from_tf_models, from_torch


def made(options: dict[str, Any]) -> ck.Optimizer:
    return ck.Optimizer.from_config(options)


ADAMW = {
    "lr": 3e-4,
    "betas": (0.9, 0.95),
    "eps": 1e-8,
    "weight_decay": 0.1,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": True,
}
"""A parameter group of `torch.optim.AdamW`."""


class AdamW:
    """Looks like torch's."""

    param_groups = (ADAMW | {"params": ()},)


@pytest.mark.parametrize(
    "source",
    [AdamW(), AdamW.param_groups, {"state": {}, "param_groups": AdamW.param_groups}],
    ids=["optimizer", "groups", "state_dict"],
)
def test_torch_sources(source: Any) -> None:
    optimizer = made(from_torch(source, None if isinstance(source, AdamW) else "AdamW"))
    expected = ("adamw", 0.95, 1e-8, 0.1, "decoupled")
    config = optimizer.get_config()
    names = ("algorithm", "beta_2", "epsilon", "weight_decay", "weight_decay_mode")
    assert tuple(config[name] for name in names) == expected
    assert config["learning_rate"] == 3e-4


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("SGD", {"momentum": 0.9, "dampening": 0.1, "nesterov": False}, {"momentum": 0.9, "dampening": 0.1}),
        ("RMSprop", {"alpha": 0.99, "eps": 1e-8, "momentum": 0, "centered": True}, {"rho": 0.99, "centered": True}),
        ("Adagrad", {"lr_decay": 0, "initial_accumulator_value": 0, "eps": 1e-10}, {"epsilon": 1e-10}),
        ("NAdam", {"betas": (0.9, 0.99), "eps": 1e-8, "momentum_decay": 0.004}, {"momentum_decay": 0.004}),
        (
            "Muon",
            {"momentum": 0.9, "eps": 1e-7, "ns_steps": 3, "ns_coefficients": (3.4445, -4.775, 2.0315)},
            {"newton_schulz_steps": 3, "adjust_rate": "original", "epsilon": 1e-8},
        ),
        ("Adam", {"weight_decay": 0.5}, {"weight_decay_mode": "l2"}),
        ("Adam", {"weight_decay": 0.5, "decoupled_weight_decay": True}, {"weight_decay_mode": "decoupled"}),
        ("Adam", {"initial_lr": 0.25}, {"learning_rate": 0.25}),
    ],
)
def test_torch_classes(name: str, group: dict[str, Any], expected: dict[str, Any]) -> None:
    config = made(from_torch([{"lr": 0.125} | group], name)).get_config()
    assert {key: config[key] for key in expected} == expected


def test_torch_groups() -> None:
    later = ADAMW | {"lr": 3e-3, "weight_decay": 0.0, "betas": (0.8, 0.95)}
    optimizer = made(from_torch([ADAMW, later], "AdamW", patterns=["head"]))
    optimizer.build([keras.Variable([1.0], name="body"), keras.Variable([1.0], name="head")])
    body, head = optimizer.describe(print_fn=lambda text: None)
    assert (body.rate, body.weight_decay, head.weight_decay) == (1.0, 0.1, 0.0) and math.isclose(head.rate, 10.0)
    assert optimizer.groups[0]["beta_1"] == 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([ADAMW],), "give algorithm"),
        (([ADAMW], "LBFGS"), "LBFGS"),
        (([ADAMW, ADAMW], "AdamW"), "need 1 patterns"),
        (([ADAMW | {"betta": 1}], "AdamW"), "betas"),
        (([{"lr": 0.1, "lr_decay": 0.5}], "Adagrad"), "lr_decay"),
        (([{"lr": 0.0}, {"lr": 1.0}], "SGD", ["head"]), "no multiple"),
        (([{"lr": 1.0, "maximize": True}, {"lr": 1.0}], "SGD", ["head"]), "maximize"),
        (([ADAMW, ADAMW | {"decoupled_weight_decay": False}], "Adam", ["head"]), "decoupled_weight_decay"),
        ((3,), "param_groups"),
        (([{"betas": (0.9, 0.99)}], "AdamW"), "lr: expected a number >= 0, received None"),
        (([ADAMW | {"betas": (0.9, 0.99, 0.999)}], "AdamW"), "betas are expected as two numbers"),
        (([ADAMW | {"betas": None}], "AdamW"), "betas are expected as two numbers, received None"),
        (([ADAMW | {"weight_decay": None}], "AdamW"), "weight_decay: expected a number >= 0, received None"),
        (([ADAMW, ADAMW], "AdamW", "bias"), "need 1 patterns.*received 'bias'"),
    ],
)
def test_torch_refuses(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        from_torch(*arguments)


def test_torch_names_of_groups_and_classes() -> None:
    """Groups may have a name; who has only the groups seldom knows how the class is capitalised."""
    assert from_torch([ADAMW | {"name": "all"}], "adamw") == from_torch([ADAMW], "AdamW")


# Hugging Face ----------------------------------------------------------------------------------------------------


def hugging_face(shape: str, t: int, warmup: int, total: int, **k: Any) -> float:
    """The factor that the schedules of `transformers.optimization` give update t."""
    if t < warmup:
        low = k.get("min_lr_ratio", 0.0)
        return low + (1 - low) * t / warmup
    s = (t - warmup) / max(1, total - warmup)
    floor = k.get("min_lr_rate", 0.0)
    if shape == "warmup_stable_decay":
        d = (t - (total - k["num_decay_steps"])) / k["num_decay_steps"]
        return 1.0 if d < 0 else k["min_lr_ratio"] + (1 - k["min_lr_ratio"]) * 0.5 * (1 + math.cos(math.pi * d))
    return {
        "linear": lambda: max(0.0, 1 - s),
        "cosine": lambda: 0.5 * (1 + math.cos(math.pi * s)),
        "cosine_with_restarts": lambda: 0.5 * (1 + math.cos(math.pi * (k.get("num_cycles", 1) * s % 1))),
        "cosine_with_min_lr": lambda: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * s)),
        "polynomial": lambda: (1 - s) ** k.get("power", 1.0),
        "constant_with_warmup": lambda: 1.0,
        "inverse_sqrt": lambda: 1 / math.sqrt(t / warmup),
        "constant": lambda: 1.0,
    }[shape]()


@pytest.mark.parametrize(
    ("shape", "kwargs"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("polynomial", {"lr_end": 0.0, "power": 2.0}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {}),
        ("warmup_stable_decay", {"num_decay_steps": 30, "min_lr_ratio": 0.2}),
    ],
)
def test_hugging_face_schedules(shape: str, kwargs: dict[str, Any]) -> None:
    arguments = {"lr_scheduler_type": shape, "lr_scheduler_kwargs": kwargs, "warmup_steps": 10, "max_steps": 100}
    optimizer = made(from_hugging_face(arguments | {"learning_rate": 0.5}))
    for t in (0, 5, 10, 11, 39, 55, 75, 99):
        expected = 0.5 * hugging_face(shape, t, 10, 100, **kwargs)
        assert math.isclose(optimizer.get_learning_rate(t), expected, rel_tol=1e-5, abs_tol=1e-7), t


def test_hugging_face_defaults() -> None:
    """Of an empty dictionary, and of an object with other arguments and an enumeration."""
    config = made(from_hugging_face({})).get_config()
    expected = {"algorithm": "adamw", "epsilon": 1e-8, "global_clipnorm": 1.0, "weight_decay": 0.0}
    assert {key: config[key] for key in expected} == expected and config["learning_rate"] == 5e-5
    kind = SimpleNamespace(value="cosine")
    arguments = SimpleNamespace(output_dir="x", lr_scheduler_type=kind, weight_decay=0.1, gradient_accumulation_steps=8)
    config = made(from_hugging_face(arguments)).get_config()
    assert config["scheduler_type"] == "cosine_with_warmup" and config["gradient_accumulation_steps"] == 8
    optimizer = made(from_hugging_face(arguments))
    optimizer.attach(total_steps=10)
    paths = ("dense/kernel", "dense/bias", "LayerNorm/scale", "ln/gamma")
    variables = []
    for path in paths:
        with keras.name_scope(path.split("/")[0]):
            variables.append(keras.Variable([1.0], name=path.split("/")[1]))
    optimizer.build(variables)
    assert [row.weight_decay for row in optimizer.describe(print_fn=lambda text: None)] == [0.1, 0, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"optim": "adamw_bnb_8bit"}, {"algorithm": "adamw", "state_precision": "8bit"}),
        ({"optim": "lion_32bit", "adam_beta2": 0.98}, {"algorithm": "lion", "beta_2": 0.98}),
        ({"optim": "adafactor"}, {"algorithm": "adafactor", "relative_step": False, "scale_parameter": False}),
        ({"adafactor": True}, {"algorithm": "adafactor"}),
        ({"optim": "sgd", "weight_decay": 0.1}, {"algorithm": "sgd", "weight_decay_mode": "l2"}),
        ({"optim": "rmsprop"}, {"algorithm": "rmsprop", "rho": 0.99}),
        ({"max_grad_norm": 0.0}, {"global_clipnorm": None}),
        ({"warmup_ratio": 0.1}, {"warmup_ratio": 0.1}),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, {"warmup_steps": 5}),
        ({"warmup_steps": 0.25}, {"warmup_ratio": 0.25}),
        ({"lr_scheduler_type": "constant", "warmup_steps": 5}, {"use_scheduler": False}),
    ],
    ids=str,
)
def test_hugging_face_options(arguments: dict[str, Any], expected: dict[str, Any]) -> None:
    config = made(from_hugging_face(arguments)).get_config()
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optim": "galore_adamw"}, "galore_adamw"),
        ({"optim_args": "x=1"}, "optim_args"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "ReduceLROnPlateau"),
        ({"lr_scheduler_type": "cosin"}, "Did you mean 'cosine'"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}}, "num_cycles"),
        ({"lr_scheduler_type": "linear", "lr_scheduler_kwargs": {"power": 2}}, "power"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"adam_beta_1": 0.8}, "Did you mean 'adam_beta1'"),
        ({"learning_rat": 0.8}, "Did you mean 'learning_rate'"),
        ({"leraning_rate": 0.8}, "Did you mean 'learning_rate'"),
        ({"num_warmup_steps": 8}, "Did you mean 'warmup_steps'"),
        ({"warmup_steps": "8"}, "warmup_steps: expected a number >= 0, received '8'"),
        ({"max_steps": None}, "max_steps: expected a whole number, received None"),
        ({"lr_scheduler_kwargs": "{power: 2"}, "lr_scheduler_kwargs must be a dictionary"),
        (None, "expected a TrainingArguments or a dictionary"),
    ],
    ids=str,
)
def test_hugging_face_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        from_hugging_face(arguments)


# tf-models -------------------------------------------------------------------------------------------------------


def garden(kind: str, options: dict[str, Any], warmup: int = 0, optimizer: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "optimizer": optimizer or {"type": "sgd"},
        "learning_rate": {"type": kind, kind: options},
        "warmup": {"type": "linear", "linear": {"warmup_steps": warmup, "warmup_learning_rate": 0.01}}
        if warmup
        else {},
    } | more


def test_tf_models_cosine_with_warmup() -> None:
    """The cosine does not wait for the warmup, which ends on it."""
    optimizer = made(from_tf_models(garden("cosine", {"initial_learning_rate": 0.4, "decay_steps": 100}, warmup=20)))

    def cosine(t: int) -> float:
        return 0.2 * (1 + math.cos(math.pi * t / 100))

    expected = [0.01, 0.01 + 0.5 * (cosine(20) - 0.01), cosine(20), cosine(60), 0.0]
    found = [optimizer.get_learning_rate(t) for t in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "rates"),
    [
        ("constant", {"learning_rate": 0.3}, [0.3, 0.3]),
        ("exponential", {"initial_learning_rate": 0.4, "decay_steps": 10, "decay_rate": 0.5}, [0.4, 0.2]),
        ("polynomial", {"initial_learning_rate": 0.4, "decay_steps": 20, "end_learning_rate": 0.0}, [0.4, 0.2]),
        ("stepwise", {"boundaries": [5], "values": [0.4, 0.1]}, [0.4, 0.1]),
        ("stepwise", {"boundaries": [5], "values": [0.4, 0.1], "offset": 6}, [0.4, 0.4]),
    ],
)
def test_tf_models_schedules(kind: str, options: dict[str, Any], rates: list[float]) -> None:
    optimizer = made(from_tf_models(garden(kind, options)))
    np.testing.assert_allclose([optimizer.get_learning_rate(t) for t in (0, 10)], rates, atol=1e-6)


def test_tf_models_optimizers() -> None:
    rate = ("constant", {"learning_rate": 0.1})
    bert = {"type": "adamw", "adamw": {"weight_decay_rate": 0.01, "exclude_from_weight_decay": ["LayerNorm", "bias"]}}
    config = made(from_tf_models(garden(*rate, optimizer=bert))).get_config()
    expected = {"weight_decay": 0.01, "weight_decay_exclude": ["LayerNorm", "bias"], "global_clipnorm": 1.0}
    assert {key: config[key] for key in expected} == expected
    for kind in ("adam_experimental", "adamw_experimental", "lamb", "rmsprop", "adagrad", "sgd_experimental"):
        assert made(from_tf_models(garden(*rate, optimizer={"type": kind}))).built is False
    average = {"average_decay": 0.9, "dynamic_decay": False}
    assert made(from_tf_models(garden(*rate, ema=average))).ema_momentum == 0.9
    with pytest.warns(UserWarning, match="dynamic_decay"):
        from_tf_models(garden(*rate, ema={"average_decay": 0.9}))


def test_no_clipping_in_the_garden() -> None:
    """Its AdamW takes a limit of 0 for none."""
    optimizer = {"type": "adamw", "adamw": {"gradient_clip_norm": 0.0}}
    assert made(from_tf_models(garden("constant", {}, optimizer=optimizer))).global_clipnorm is None


def test_hugging_face_keywords_from_a_command_line() -> None:
    """Hugging Face takes the JSON of a dictionary; other arguments that look like ours are left aside."""
    text, plain = (
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": k} for k in ('{"power": 2}', {"power": 2})
    )
    assert from_hugging_face(text) == from_hugging_face(plain | {"eval_accumulation_steps": 2, "save_steps": 5})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "optimizer needs a 'type'"),
        ({"optimiser": {}}, "Did you mean 'optimizer'"),
        (garden("constant", {}, optimizer={"type": "slide"}), "slide"),
        (garden("constant", {}, optimizer={"type": "sgd", "sgd": {"momentun": 0.9}}), "Did you mean 'momentum'"),
        (garden("constant", {}, optimizer={"type": "sgd", "sgd": {"decay": 0.1}}), "decay"),
        (garden("power", {}), "power"),
        (garden("cosine", {}), "not complete"),
        (garden("constant", {}) | {"warmup": {"type": "polynomial"}}, "warmup type"),
        (garden("constant", {}) | {"warmup": {"type": "linear"}}, "warmup_steps"),
        (garden("constant", {}, ema={"start_step": 5}), "start_step"),
        (None, "expected an OptimizationConfig or its dictionary, received None"),
        (garden("constant", {}, optimizer="adam"), "optimizer needs a 'type', received 'adam'"),
        (garden("constant", {}, optimizer={"type": "adam", "adam": [1]}), "are a dictionary"),
        (garden("constant", {}) | {"warmup": 100}, "warmup needs a 'type', received 100"),
        (garden("stepwise", {"boundaries": [1, 2], "values": [0.1, 0.2]}), "learning_rate 'stepwise'.*boundaries"),
    ],
    ids=str,
)
def test_tf_models_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        from_tf_models(config)


def test_the_overlaid_warmup_is_saved() -> None:
    schedule = OverlaidWarmup(keras.optimizers.schedules.CosineDecay(1.0, 10), 3, 0.1, offset=1)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert again.preview(12).rates.tolist() == schedule.preview(12).rates.tolist() and again.peak == 1.0

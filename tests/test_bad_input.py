"""Wrong options and wrong calls: one kind of error, which names the argument, the value and what is allowed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from keras import ops

import capibara_keras as ck
from capibara_keras import config
from capibara_keras.schedules import OPTION_NAMES, LinearWithWarmup, plan
from tests.models import variables

NAN, INF = float("nan"), float("inf")
STEPS = {"total_steps": 100}
RESTARTS = {**STEPS, "cosine_restarts": True, "restart_period": 10}


def message(call: Callable[[], Any]) -> str:
    with pytest.raises(ck.ConfigError) as raised:
        call()
    return str(raised.value)


# One option ----------------------------------------------------------------------------------------------------

SHARE = [-0.1, 1.0, 2, NAN, "0.9", None, True, [0.9]]
POSITIVE = [0, -1.0, NAN, INF, "1", False, [1.0]]
NOT_NEGATIVE = [-1.0, NAN, INF, "1", False, [1.0]]
COUNT = [0, -1, 1.5, NAN, INF, "2", True, [2]]
BOOLEAN = [0, 1, "True", 1.0, [], None]

BAD: dict[str, tuple[dict[str, Any], list[Any]]] = {
    # option: (what goes with it, bad values)
    "algorithm": ({}, ["adma", "", 5, None, [], {}]),
    "learning_rate": ({}, [-1.0, NAN, INF, "1e-3", True, [0.1], np.array([0.1]), {}]),
    "beta_1": ({}, SHARE),
    "beta_2": ({}, SHARE),
    "epsilon": ({}, [0, 0.0, -1e-8, 1e-40, NAN, "1e-8", None, True]),
    "amsgrad": ({}, BOOLEAN),
    "correct_bias": ({}, BOOLEAN),
    "momentum": ({"algorithm": "sgd"}, SHARE),
    "dampening": ({"algorithm": "sgd"}, [-0.1, 1.5, NAN, "0", None, False]),
    "nesterov": ({"algorithm": "sgd"}, BOOLEAN),
    "weight_decay": ({}, NOT_NEGATIVE),
    "weight_decay_mode": ({}, ["L2", "", 2, None, []]),
    "weight_decay_exclude": ({}, [5, [5], [None], "(", ["*"], {"a": 1, 2: 3}]),
    "clipnorm": ({}, POSITIVE),
    "clipvalue": ({}, POSITIVE),
    "global_clipnorm": ({}, POSITIVE),
    "clip_method": ({"clip_value": 1.0}, ["norms", 5, []]),
    "clip_value": ({"clip_method": "value"}, [0, -1.0, NAN, "1", True]),
    "clip_coeff": ({"clip_method": "agc"}, [0, -1.0, NAN, "1", True]),
    "clip_output_layer": ({"clip_method": "agc"}, [0, "True"]),
    "per_parameter_clipping": ({"clip_value": 1.0}, [0, "True"]),
    "adaptive_clipping": (
        {},
        [
            5,
            "on",
            [1],
            {"enable": 1},
            {"percentle": 10},
            {"enable": True, "percentile": 101},
            {"enable": True, "history_length": 1},
            {"enable": True, "history_length": 2.5},
            {"enable": True, "min_clip_value": 2.0, "max_clip_value": 1.0},
        ],
    ),
    "skip_spikes": ({}, POSITIVE),
    "use_ema": ({}, BOOLEAN),
    "ema_momentum": ({}, [-0.1, 1.1, NAN, "0.9", None, True]),
    "ema_overwrite_frequency": ({"use_ema": True}, COUNT),
    "gradient_accumulation_steps": ({}, COUNT),
    "accumulator": ({}, BOOLEAN),
    "normalize_gradients": ({}, BOOLEAN),
    "loss_divided": ({}, BOOLEAN),
    "defer_clip_until_accumulation": ({}, BOOLEAN),
    "sync_batchnorm": ({}, BOOLEAN),
    "remainder": ({}, ["flsh", True, None, 0]),
    "loss_scale_factor": ({}, POSITIVE),
    "nonfinite": ({}, ["ignore", None, 0, False]),
    "layer_wise_lr_decay": ({}, [0, -0.5, 1.5, NAN, "0.9", True]),
    "layer_depths": ({}, [5, "a", ["a"], {"a": -1}, {"a": 0.5}, {5: 1}, {"re:(": 1}]),
    "differential_learning_rates": ({}, [5, "a", ["a"], {"a": -1.0}, {"a": "x"}, {5: 1.0}, {"": 1.0}, {"re:(": 1}]),
    "groups": (
        {},
        [
            5,
            [5],
            {"pattern": "a"},
            [{"rate": 1.0}],
            [{"pattern": "a", "rate": -1.0}],
            [{"pattern": "a", "rte": 1.0}],
            [{"pattern": "a", "algorithm": "adma"}],
            [{"pattern": "a", "beta_1": 0.5}],
            [{"pattern": "a", "weight_decay": -1}],
            [{"pattern": "re:("}],
        ],
    ),
    "state_precision": ({}, ["int8", "", None, 8, True]),
    "kahan_summation": ({}, BOOLEAN),
    "cautious": ({}, BOOLEAN),
    "gradient_centralization": ({}, BOOLEAN),
    "lookahead_steps": ({}, COUNT),
    "lookahead_alpha": ({"lookahead_steps": 5}, [0, -0.5, 1.5, NAN, "1", True]),
    "maximize": ({}, BOOLEAN),
    "foreach": ({}, BOOLEAN),
    "statistics_every": ({}, COUNT),
    "differentiable": ({}, BOOLEAN),
    "shard_state": ({}, BOOLEAN),
    "jit_compile": ({}, BOOLEAN),
    "no_deprecation_warning": ({}, BOOLEAN),
    "recipe": ({}, ["pretraining", 5, {}, {"name": 5}, []]),
    "use_scheduler": (STEPS, [0, 1, "True", 1.0, []]),
    "scheduler_type": ({}, ["cosin", "", 5, True, []]),
    "total_steps": ({}, COUNT),
    "warmup_steps": (STEPS, [-1, 1.5, NAN, "2", True, 100, 101]),
    "warmup_ratio": (STEPS, [-0.1, 1.0, NAN, "0.1", True]),
    "warmup_init_lr": (STEPS, [-1.0, NAN, "0", True, 1.0]),
    "peak_learning_rate": (STEPS, [-1.0, NAN, INF, "1", True]),
    "min_learning_rate": (STEPS, [-1.0, NAN, "0", True, 1.0]),
    "min_lr_ratio": (STEPS, [-0.1, 1.1, NAN, "0.1", True]),
    "cosine_cycles": (STEPS, [0, -1, NAN, "2", True, 1000]),
    "cosine_restarts": (RESTARTS, [0, 1, "True"]),
    "restart_period": (RESTARTS, COUNT),
    "restart_decay": (RESTARTS, [0, -0.5, 1.5, NAN, "1", True]),
    "restart_multiplier": (RESTARTS, [0, 0.5, NAN, "1", True]),
    "restart_warmup_steps": (RESTARTS, [-1, 1.5, "1", True, 10]),
    "power": ({"scheduler_type": "polynomial", **STEPS}, [0, -1.0, NAN, "1", True]),
    "timescale": ({"scheduler_type": "inverse_sqrt"}, COUNT),
    "decay_steps": ({"scheduler_type": "wsd", **STEPS}, [*COUNT, 101]),
    "decay_ratio": ({"scheduler_type": "wsd", **STEPS}, [0, -0.5, 1.5, NAN, "1", True]),
    "decay_shape": ({"scheduler_type": "wsd", "decay_steps": 5, **STEPS}, ["lineer", "", 5, True]),
    "decay_rate": ({"scheduler_type": "exponential", "decay_steps": 5}, [0, -0.5, 1.5, NAN, "1", True]),
    "boundaries": ({"scheduler_type": "piecewise", "factors": [0.5, 0.1]}, [5, "ab", [2, 1], [1, 1], [0, 1], [1.5, 2]]),
    "factors": ({"scheduler_type": "piecewise", "boundaries": [1, 2]}, [5, "ab", [-1, 1], ["a", "b"]]),
    "cycle_steps": ({"scheduler_type": "cyclic"}, [*COUNT, 1]),
    "cycle_decay": ({"scheduler_type": "cyclic", "cycle_steps": 4}, [0, -0.5, 1.5, NAN, "1", True]),
}
"""Every option with values that it cannot have."""


def test_every_option_has_a_row() -> None:
    """A new option cannot be forgotten here."""
    own = {"algorithm", "recipe", *ck.Adam().get_config(), *ck.SGD().get_config(), *config.CLIPPING} - {"name"}
    assert own | (OPTION_NAMES - plan.ALIASES.keys()) == set(BAD)


@pytest.mark.parametrize("option", BAD)
def test_a_bad_value(option: str) -> None:
    """The message names the option, the value, and what is allowed; the constructor of each class raises it."""
    others, values = BAD[option]
    for value in values:
        text = message(lambda value=value: ck.Optimizer(**{**others, option: value}))
        if isinstance(value, (dict, list)):
            assert any(name in text for name in [option, *inner_names(value)])
        else:
            assert option in text
            assert repr(value) in text
        assert any(word in text for word in ("expected", "Allowed", "exclude", "not a regular", "above"))


def inner_names(value: Any) -> list[str]:
    """The options in a dictionary, or in a list of them."""
    parts = value if isinstance(value, list) else [value]
    return [str(name) for part in parts if isinstance(part, dict) for name in part]


@pytest.mark.parametrize("value", [-1.0, 1.5, "a", None, True])
@pytest.mark.parametrize("make", [ck.Adam, ck.AdamW, ck.Optimizer])
def test_a_bad_value_in_every_constructor(make: Any, value: Any) -> None:
    assert message(lambda: make(beta_1=value)) == f"beta_1: expected a number in [0, 1), received {value!r}"


def test_numpy_numbers_are_numbers() -> None:
    """They come out of searches over options; the configuration stays plain data."""
    optimizer = ck.Adam(
        np.float32(0.5),
        beta_1=np.float64(0.5),
        weight_decay=np.float32(0.25),
        amsgrad=np.bool_(True),
        gradient_accumulation_steps=np.int64(2),
        warmup_steps=np.int32(3),
        scheduler_type="constant_with_warmup",
    )
    plain = ck.Adam(
        0.5,
        beta_1=0.5,
        weight_decay=0.25,
        amsgrad=True,
        gradient_accumulation_steps=2,
        warmup_steps=3,
        scheduler_type="constant_with_warmup",
        name=optimizer.name,
    )
    assert json.loads(json.dumps(optimizer.get_config())) == plain.get_config()


def test_whole_floats_are_counts() -> None:
    """5e3 micro-batches are 5000."""
    assert repr(ck.SGD(gradient_accumulation_steps=5e3).gradient_accumulation_steps) == "5000"
    optimizer = ck.SGD(use_ema=True, ema_overwrite_frequency=2.0)
    assert repr(optimizer.ema_overwrite_frequency) == "2"


# Names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ck.Optimizer, ck.Adam, ck.AdamW, ck.SGD])
@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("weigth_decay", "weight_decay"),
        ("gradient_clipnorm", "gradient_clip_norm"),
        ("warm_up_steps", "warmup_steps"),
        ("nesterow", "nesterov"),
        ("accumulate_steps", "accumulation_steps"),
    ],
)
def test_an_unknown_option(make: Any, typo: str, meant: str) -> None:
    if meant == "nesterov" and make is not ck.SGD:
        return test_an_option_of_another_algorithm(make, "nesterov", True, "sgd, lars")
    text = message(lambda: make(**{typo: 1}))
    assert text.startswith(f"unknown option {typo!r}. Did you mean {meant!r}? Allowed: ")
    return None


def test_an_unknown_option_like_no_other() -> None:
    text = message(lambda: ck.Adam(zzz=1))
    assert text.startswith("unknown option 'zzz'. Allowed: ")
    assert text.endswith(" in all: see help(capibara_keras.OptimizerConfig))") and len(text) < 300  # not all the names


@pytest.mark.parametrize(
    ("make", "option", "value", "owner"),
    [
        (ck.Adam, "momentum", 0.9, "sgd, rmsprop, lars"),
        (ck.AdamW, "nesterov", True, "sgd, lars"),
        (ck.Optimizer, "dampening", 0.1, "sgd"),
        (ck.SGD, "beta_1", 0.9, "adam, adamw, nadam, "),
        (ck.SGD, "beta2", 0.9, "adam, adamw, nadam, "),
        (ck.SGD, "amsgrad", True, "adam, adamw"),
    ],
)
def test_an_option_of_another_algorithm(make: Any, option: str, value: Any, owner: str) -> None:
    """Not ignored: the message says whose it is, and what this one has."""
    text = message(lambda: make(**{option: value}))
    canonical = config.ALIASES.get(option, option)
    assert text.startswith(f"option {canonical!r} belongs to algorithm {owner}")
    assert " has " in text


def test_an_option_of_another_schedule() -> None:
    text = message(lambda: ck.Adam(scheduler_type="linear_with_warmup", total_steps=9, cosine_cycles=2.0))
    assert "cosine_cycles: linear_with_warmup has no such option" in text
    assert "cosine_with_warmup has" in text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ck.Optimizer("adams"), "unknown algorithm 'adams'. Did you mean 'adam'? Allowed: adadelta, "),
        (
            lambda: ck.Adam(scheduler_type="cosine_with_warm"),
            "unknown scheduler_type 'cosine_with_warm'. Did you mean 'cosine_with_warmup'? Allowed: ",
        ),
        (lambda: ck.Optimizer().configure_scheduler({"warmup": 5}), "unknown schedule option 'warmup'. Did you mean "),
        (lambda: ck.Optimizer().configure_gradient_clipping({"clip_vale": 1}), "Did you mean 'clip_value'?"),
        (lambda: ck.Optimizer().configure_gradient_accumulation({"step": 1}), "unknown accumulation option 'step'"),
        (lambda: ck.Adam(nonfinite="skp"), "unknown nonfinite 'skp'. Did you mean 'skip'? Allowed: "),
        (lambda: ck.Optimizer.create_adam({"algorithm": "sgd"}), "create_adam: the options name another algorithm"),
        (lambda: ck.Adam.from_config({"algorithm": "sgd"}), "Adam.from_config: the options name another algorithm"),
        (lambda: ck.Adam().reconfigure({"beta1": 2}), "beta_1: expected a number in [0, 1), received 2"),
        (lambda: ck.Adam().reconfigure({"bta_1": 0.5}), "unknown option 'bta_1'. Did you mean 'beta_1'?"),
        (lambda: setattr(ck.Adam(), "beta_1", 2), "beta_1: expected a number in [0, 1), received 2"),
        (lambda: ck.Adam(lambda step: 0.1), "called without arguments (missing a required argument: 'step')"),
        (
            lambda: ck.Adam(groups=[{"pattern": "head", "learning_rate": 0.1}]),
            "groups: 'learning_rate' of 'head': a group has 'rate', which multiplies",
        ),
        (lambda: setattr(ck.Adam(), "foreach", 1), "foreach: expected True or False, received 1"),
    ],
)
def test_messages(call: Callable[[], Any], text: str) -> None:
    assert text in message(call)


# Two options ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"clipnorm": 1.0, "clipvalue": 2.0}, ["clipnorm=1.0", "clipvalue=2.0", "exclude each other"]),
        ({"clipnorm": 1.0, "gradient_clip_norm": 2.0}, ["clipnorm=1.0", "global_clipnorm=2.0", "exclude each other"]),
        ({"clipnorm": 1.0, "clip_method": "value", "clip_value": 2.0}, ["clipnorm=1.0", "clip_value=2.0", "exclude"]),
        ({"warmup_steps": 5, "warmup_ratio": 0.1, **STEPS}, ["warmup_steps=5", "warmup_ratio=0.1", "exclude"]),
        ({"min_lr": 0.1, "min_lr_ratio": 0.2, **STEPS}, ["min_lr=0.1", "min_lr_ratio=0.2", "exclude each other"]),
        ({"warmup_steps": 100, "max_steps": 100}, ["total_steps", "more than warmup_steps=100", "received 100"]),
        ({"warmup_steps": 101, "max_steps": 100}, ["total_steps", "more than warmup_steps=101", "received 100"]),
        ({"min_lr": 2.0, "peak_lr": 1.0, **STEPS}, ["min_learning_rate", "peak_learning_rate=1.0", "received 2.0"]),
        (
            {"cosine_cycles": 2.0, "cosine_restarts": True, "restart_period": 9, **STEPS},
            ["cosine_cycles", "received 2.0"],
        ),
        ({"restart_period": 9, **STEPS}, ["restart_period", "cosine_restarts=True", "received 9"]),
        ({"max_steps": 100, "training_steps": 200}, ["max_steps=100", "training_steps=200", "both mean total_steps"]),
        ({"beta1": 0.5, "beta_1": 0.6}, ["beta1=0.5", "beta_1=0.6", "same option with different values"]),
        ({"lr": 0.5, "learning_rate": 0.6}, ["lr=0.5", "learning_rate=0.6", "same option with different values"]),
        (
            {"gradient_clip_norm": 1.0, "global_clipnorm": 2.0},
            ["gradient_clip_norm=1.0", "global_clipnorm=2.0", "same"],
        ),
        (
            {"learning_rate": LinearWithWarmup(1.0, 10), "warmup_steps": 5},
            ["learning_rate=LinearWithWarmup(", "is a schedule already", "'warmup_steps': 5"],
        ),
        ({"groups": [{"pattern": "a", "clip_method": "adaptive"}]}, ["group 'a': adaptive clipping is for all"]),
        ({"clip_method": "value"}, ["clip_method='value' needs clip_value"]),
        (
            {"clip_method": "adaptive", "adaptive_clipping": {"enable": False}},
            ["clip_method='adaptive' contradicts adaptive_clipping.enable=False"],
        ),
    ],
)
def test_contradictions(options: dict[str, Any], named: list[str]) -> None:
    text = message(lambda: ck.Optimizer(**options))
    assert [part for part in named if part not in text] == []


def test_two_spellings_in_a_named_class() -> None:
    """One is an explicit argument there."""
    assert "beta_1" in message(lambda: ck.Adam(beta_1=0.5, beta1=0.6))
    assert "learning_rate" in message(lambda: ck.SGD(0.5, lr=0.25))


ALIASES = config.ALIASES | plan.ALIASES
GOOD: dict[str, tuple[Any, dict[str, Any]]] = {
    "beta_1": (0.5, {}),
    "beta_2": (0.5, {}),
    "epsilon": (0.5, {}),
    "learning_rate": (0.5, {}),
    "global_clipnorm": (0.5, {}),
    "gradient_accumulation_steps": (3, {}),
    "loss_divided": (True, {}),
    "scheduler_type": ("linear_with_warmup", STEPS),
    "total_steps": (50, {}),
    "warmup_steps": (5, STEPS),
    "peak_learning_rate": (0.5, STEPS),
    "min_learning_rate": (1e-4, STEPS),
    "warmup_init_lr": (1e-4, STEPS),
    "decay_steps": (5, {"scheduler_type": "wsd", **STEPS}),
    "decay_shape": ("cosine", {"scheduler_type": "wsd", "decay_steps": 5, **STEPS}),
    "boundaries": ([5], {"scheduler_type": "piecewise", "factors": [0.5]}),
}


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("make", [ck.Optimizer, ck.Adam])
def test_aliases(make: Any, alias: str) -> None:
    """Every other spelling gives the configuration of the canonical one; both together agree, or are refused."""
    value, others = GOOD[ALIASES[alias]]
    expected = make(**{ALIASES[alias]: value}, **others, name="o").get_config()
    assert make(**{alias: value}, **others, name="o").get_config() == expected
    assert expected != make(**others, name="o").get_config()
    if make is ck.Optimizer:
        assert make(**{alias: value, ALIASES[alias]: value}, **others, name="o").get_config() == expected


# Calls ---------------------------------------------------------------------------------------------------------


def sgd() -> ck.Optimizer:
    return ck.Optimizer("sgd", jit_compile=False)


def built() -> tuple[ck.Optimizer, list[keras.Variable]]:
    optimizer, ws = sgd(), variables((2,), (3,))
    optimizer.build(ws)
    return optimizer, ws


ONES = [np.ones(2, "float32"), np.ones(3, "float32")]


@pytest.mark.parametrize("method", ["apply", "step"])
@pytest.mark.parametrize("ready", [False, True])
def test_lists_that_do_not_match(method: str, ready: bool) -> None:
    optimizer, ws = built() if ready else (sgd(), variables((2,), (3,)))
    call = getattr(optimizer, method)
    assert "1 gradients for 2 variables" in message(lambda: call(ONES[:1], ws))
    assert "2 gradients for 1 variables" in message(lambda: call(ONES, ws[:1]))


def test_gradients_without_variables() -> None:
    assert "optimizer.build(variables)" in message(lambda: sgd().apply(ONES))
    optimizer, _ = built()
    assert "1 gradients for 2 variables" in message(lambda: optimizer.apply(ONES[:1]))


def test_all_gradients_none() -> None:
    """As with Keras; the state stays."""
    optimizer, ws = built()
    assert "No gradients provided for any variable" in message(lambda: optimizer.apply([None, None], ws))
    assert int(optimizer.iterations) == 0


def test_unknown_variables() -> None:
    optimizer, _ = built()
    others = [keras.Variable(np.ones(2, "float32"), name=name) for name in ("stranger", "other")]
    text = message(lambda: optimizer.apply([ONES[0], ONES[0]], others))
    assert "stranger" in text
    assert "built with" in text


def test_variables_and_gradients_exchanged() -> None:
    text = message(lambda: sgd().step([keras.Variable([1.0])], [ops.ones(1)]))
    assert "expected variables, received a" in text and "Gradients come first" in text


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(3, 2), (2,), (), (1, 2, 3)])
def test_a_gradient_of_another_shape(shape: tuple[int, ...], compiled: bool) -> None:
    """Named while tracing, and nothing is built or written; also where AutoGraph wraps the error."""
    optimizer, (w,) = sgd(), variables((2, 3))
    call = lambda: optimizer.apply([tf.ones(shape)], [w])  # noqa: E731
    text = message(tf.function(call) if compiled else call)
    assert f"the gradient of w0 has shape {shape}, the variable (2, 3)" in text
    assert not optimizer.built


def test_a_shape_known_only_at_run_time() -> None:
    optimizer, (w,) = sgd(), variables((2,))
    optimizer.build([w])
    signature = [tf.TensorSpec(None), tf.TensorSpec([None])]
    apply = tf.function(lambda a, b: optimizer.apply([a + b], [w]), input_signature=signature, autograph=False)
    before = w.numpy()
    apply(ONES[0], ONES[0])
    np.testing.assert_allclose(w.numpy(), before - 0.02)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        apply(ONES[1], ONES[1])


@pytest.mark.parametrize(
    ("gradient", "named"),
    [
        (np.ones(2, "complex64"), "is of dtype complex64; expected real numbers"),
        (np.array(["a", "b"]), "is of dtype string; expected real numbers"),
        (keras.KerasTensor((2,)), "is a KerasTensor, and no tensor"),
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), "is a RaggedTensor, and no tensor"),
    ],
)
def test_a_gradient_that_is_no_tensor_of_numbers(gradient: Any, named: str) -> None:
    assert f"the gradient of w0 {named}" in message(lambda: sgd().apply([gradient], variables((2,))))


@pytest.mark.parametrize("method", ["apply", "accumulate_gradients"])
def test_what_is_no_list_of_variables(method: str) -> None:
    def text(*arguments: Any) -> str:
        return message(lambda: getattr(sgd(), method)(*arguments))

    (w,), count = variables((2,)), keras.Variable(np.ones(2, "int32"), dtype="int32", name="count")
    assert "expected a list of variables, received a Variable" in text(ONES[0], w)
    assert "give its `trainable_variables`" in text(ONES, keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    assert "variable w0 is given twice" in text([ONES[0], ONES[0]], [w, w])
    assert "variable count is of dtype int32; only real floating-point ones" in text(ONES[:1], [count])
    assert "received a dictionary" in text({"w": ONES[0]}, [w])
    assert "0 gradients for 1 variables" in text([], [w])


@pytest.mark.parametrize(
    ("name", "meant"),
    [("weigth_decay", "weight_decay"), ("learning_rat", "learning_rate"), ("warmup_step", "warmup_steps")],
)
def test_a_misspelt_option_that_is_assigned(name: str, meant: str) -> None:
    """It would do nothing. What is like no option may be set, and a subclass may have names of its own."""
    optimizer, own = sgd(), type("Own", (ck.SGD,), {"__module__": __name__})()
    assert f"unknown option {name!r}. Did you mean {meant!r}?" in message(lambda: setattr(optimizer, name, 0.1))
    optimizer.note = "mine"
    setattr(own, name, 0.1)
    assert getattr(own, name) == 0.1


@pytest.mark.parametrize("given", [None, 5, [np.ones(2)], [tf.Variable([1 + 2j])]])
def test_building_with_what_cannot_be_trained(given: Any) -> None:
    optimizer = sgd()
    assert message(lambda: optimizer.build(given)).startswith("build: ")
    assert not optimizer.built


@pytest.mark.parametrize("base", [(ck.Optimizer,), (ck.AdamW,), (ck.Adam, keras.optimizers.SGD)])
def test_a_formula_that_would_never_be_used(base: tuple[type, ...]) -> None:
    """Keras calls `update_step` of its own optimizers; a mixin's counts too."""
    formula = {"update_step": lambda self, gradient, variable, learning_rate: None} if len(base) == 1 else {}
    assert "Mine overrides update_step, which is never called here. Write" in message(
        lambda: type("Mine", base, formula)
    )


@pytest.mark.parametrize(
    ("returned", "named"), [(None, "None"), ([0.1], "shape (1,)"), (np.ones((2, 2)), "shape (2, 2)")]
)
def test_a_schedule_that_gives_no_scalar(returned: Any, named: str) -> None:
    class Shape(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return returned

    optimizer, (w,) = ck.SGD(Shape()), variables((2,))
    text = message(lambda: optimizer.apply(ONES[:1], [w]))
    assert text == f"learning_rate: expected a scalar of Shape, received {named}"


def test_pairs_that_are_none() -> None:
    """An iterator that was read before would train nothing."""
    (w,) = variables((2,))
    pairs = zip(ONES[:1], [w], strict=True)
    assert len(list(pairs)) == 1
    assert "no pairs of gradient and variable; a `zip` can be read only once" in message(
        lambda: sgd().apply_gradients(pairs)
    )
    assert "received a ndarray; `apply` takes two lists" in message(lambda: sgd().apply_gradients(ONES[:1]))


def test_numbers_cannot_be_read_in_a_compiled_function() -> None:
    optimizer, ws = built()
    compiled = tf.function(lambda: optimizer.step(ONES, ws, return_metrics=True), autograph=False)
    assert "cannot be read inside a compiled function" in message(compiled)


def test_dictionaries_that_do_not_match() -> None:
    ws = {"a": keras.Variable([1.0]), "b": keras.Variable([1.0])}
    assert "Did you mean 'a'" in message(lambda: sgd().step({"aa": ops.ones(1)}, ws))
    assert "gradients: expected a dictionary" in message(lambda: sgd().step([ops.ones(1), ops.ones(1)], ws))


@pytest.mark.parametrize("number", [-1, 1.5, "3", True])
def test_a_bad_step_number(number: Any) -> None:
    optimizer, ws = built()
    text = message(lambda: optimizer.step(ONES, ws, step_number=number))
    assert text == f"step_number: expected a whole number >= 0, received {number!r}"


def test_reading_before_there_is_anything() -> None:
    assert "none before the first update" in message(lambda: sgd().statistics())


def test_a_failed_change_changes_nothing() -> None:
    """All or none of several options."""
    optimizer = ck.Adam()
    before = optimizer.get_config()
    message(lambda: optimizer.reconfigure({"beta_1": 0.5, "beta_2": 2.0}))
    assert optimizer.get_config() == before
    message(lambda: optimizer.configure_cosine_scheduler({"warmup_steps": 9, "max_steps": 8}))
    assert optimizer.get_config() == before


# Any options ---------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.floats(0.01, 0.99), st.integers(1, 5))
JUNK = st.one_of(
    st.sampled_from([-1, 0, 1, NAN, INF, 1e-8, 1e3]),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
)
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "algorithm": st.sampled_from(["adam", "adamw", "sgd"]),
    "scheduler_type": st.sampled_from(["cosine_with_warmup", "linear_with_warmup", "polynomial", "wsd", "exponential"]),
    "weight_decay_mode": st.sampled_from(["decoupled", "independent", "l2"]),
    "nonfinite": st.sampled_from(["skip", "raise", "propagate", "drop_micro_batch"]),
    "remainder": st.sampled_from(["flush", "carry"]),
    "weight_decay_exclude": st.lists(st.sampled_from(["w0", "w", "^x$"]), max_size=2),
    "clip_method": st.sampled_from(["norm", "value", "adaptive", "agc"]),
    "adaptive_clipping": st.fixed_dictionaries({"enable": st.booleans()}),
    "differential_learning_rates": st.dictionaries(st.sampled_from(["w0", "w1", "re:w"]), st.floats(0, 2), max_size=2),
    "layer_depths": st.dictionaries(st.sampled_from(["w0", "w1"]), st.integers(0, 3), max_size=2),
    "groups": st.lists(
        st.fixed_dictionaries(
            {"pattern": st.sampled_from(["w0", "w1"])},
            optional={
                "rate": st.floats(0, 2),
                "algorithm": st.sampled_from(["adam", "sgd"]),
                "clipnorm": st.floats(0, 1),
            },
        ),
        max_size=2,
    ),
    "total_steps": st.integers(5, 50),
    "foreach": st.just(True),  # False would compile a step for each variable
    "jit_compile": st.just(False),
}


RULES_OWN = {
    "sgd": {"momentum", "nesterov", "dampening"},
    "adam": {"beta_1", "beta_2", "epsilon", "amsgrad", "correct_bias"},
}


def sensible(option: str) -> st.SearchStrategy[Any]:
    """Values that an option may well have."""
    return LIKELY.get(option, st.booleans() if BAD[option][1] == BOOLEAN else NUMBERS)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """Up to six options, mostly of one algorithm and one schedule and with values that they can have."""
    algorithm = draw(st.sampled_from(["adam", "sgd"]))
    names = set(draw(st.lists(st.sampled_from(sorted(BAD)), max_size=6, unique=True)))
    if draw(st.integers(0, 9)):
        names -= RULES_OWN["sgd" if algorithm == "adam" else "adam"]
        if not names & {"scheduler_type"}:
            names -= OPTION_NAMES
    given = {name: draw(sensible(name) if draw(st.integers(0, 19)) else JUNK) for name in sorted(names)}
    return {"algorithm": algorithm} | given | {"jit_compile": False}


@hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)
@hypothesis.given(options=options(), change=options())
def test_any_options_work_or_are_refused(options: dict[str, Any], change: dict[str, Any]) -> None:
    """They make an optimizer that trains a step, or a `ConfigError`, and so do changes afterwards; nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ws = variables((2,), (3,))
        try:
            optimizer = ck.Optimizer(**options)
            optimizer.apply(ONES, ws)
        except ck.ConfigError:
            return
        assert all(np.isfinite(w.numpy()).all() for w in ws)
        before = optimizer.get_config()
        assert type(optimizer).from_config(json.loads(json.dumps(before))).get_config() == before
        try:
            optimizer.reconfigure(change)
        except ck.ConfigError:
            assert optimizer.get_config() == before
            return
        try:
            optimizer.apply(ONES, ws)
        except ck.ConfigError:  # a schedule without its steps
            return
        assert all(np.isfinite(w.numpy()).all() for w in ws)

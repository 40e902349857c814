"""Configurations survive every round trip, and what is built is what Keras counts on."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.schedules import CosineWithWarmup
from tests.models import regression, regressor, values, variables
from tests.thinning import thinned

COSINE = CosineWithWarmup(0.5, total_steps=100, warmup_steps=10, min_learning_rate=0.05)
KERAS_COSINE = keras.optimizers.schedules.CosineDecay(0.5, 100, alpha=0.1)

COMMON: dict[str, Any] = {
    "weight_decay": 0.25,
    "weight_decay_mode": "l2",
    "weight_decay_exclude": ["bias", r"^norm/\w+$"],
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 7,
    "loss_scale_factor": 16.0,
    "gradient_accumulation_steps": 3,
    "accumulator": True,
    "normalize_gradients": False,
    "loss_divided": True,
    "defer_clip_until_accumulation": False,
    "sync_batchnorm": True,
    "remainder": "carry",
    "skip_spikes": 5.0,
    "layer_wise_lr_decay": 0.5,
    "layer_depths": {"w0": 0, "w1": 3},
    "differential_learning_rates": {"w0": 0.5, "re:w1$": 2.0},
    "groups": [{"pattern": "w1", "rate": 0.5, "weight_decay": 0.0, "algorithm": "sgd", "momentum": 0.5}],
    "nonfinite": "propagate",
    "state_precision": "bfloat16",
    "kahan_summation": True,
    "cautious": True,
    "gradient_centralization": True,
    "lookahead_steps": 3,
    "lookahead_alpha": 0.25,
    "maximize": True,
    "foreach": False,
    "statistics_every": 2,
    "differentiable": True,
    "jit_compile": False,
    "no_deprecation_warning": True,
    "name": "mine",
}
"""A value that is not the default for everything that an algorithm shares with the others."""

ADAM = {"beta_1": 0.5, "beta_2": 0.75, "epsilon": 1e-3, "amsgrad": True, "correct_bias": False}
SGD = {"momentum": 0.5, "nesterov": True, "dampening": 0.25}
SCHEDULE = {"scheduler_type": "linear_with_warmup", "warmup_steps": 5, "total_steps": 50, "min_learning_rate": 0.01}

CASES: dict[str, Any] = {
    "Optimizer": lambda: ck.Optimizer(),
    "Adam": lambda: ck.Adam(),
    "AdamW": lambda: ck.AdamW(),
    "SGD": lambda: ck.SGD(),
    "Optimizer, all": lambda: ck.Optimizer("adamw", 0.125, global_clipnorm=2.0, **ADAM, **COMMON),
    "Adam, all": lambda: ck.Adam(0.125, clipnorm=2.0, **ADAM, **COMMON),
    "AdamW, all": lambda: ck.AdamW(0.125, clipvalue=2.0, **ADAM, **COMMON),
    "SGD, all": lambda: ck.SGD(0.125, global_clipnorm=2.0, **SGD, **COMMON),
    "schedule": lambda: ck.Adam(COSINE),
    "schedule of Keras": lambda: ck.Optimizer("sgd", KERAS_COSINE, momentum=0.5),
    "schedule options": lambda: ck.Optimizer("adam", 0.5, **SCHEDULE),
    "schedule options, class": lambda: ck.SGD(0.5, **SCHEDULE),
    "schedule options, not used": lambda: ck.Adam(0.5, use_scheduler=False, **SCHEDULE),
    "schedule options, incomplete": lambda: ck.Adam(0.5, warmup_ratio=0.1, min_lr_ratio=0.1),
    "schedule, step by step": lambda: configured(),
    "no decay": lambda: ck.AdamW(weight_decay=None),
    "clipping, adaptive": lambda: ck.Adam(
        clip_method="adaptive", adaptive_clipping={"percentile": 50, "history_length": 5, "max_clip_value": 2.0}
    ),
    "clipping, units": lambda: ck.SGD(clip_method="agc", clip_coeff=0.02, clip_output_layer=True, clip_value=3.0),
    "clipping, each": lambda: ck.SGD(clip_method="norm", clip_value=0.5, per_parameter_clipping=True),
    "group with all": lambda: ck.SGD(groups=[{"pattern": "w0", "algorithm": "adam", **ADAM, "clipvalue": 0.25}]),
    "sharded": lambda: ck.Adam(shard_state=True),
}


TRAINED = sorted(CASES.keys() - {"sharded", "Optimizer", "Adam", "AdamW", "Adam, all", "AdamW, all"})
"""Those that differ in more than the class, and do not need the JAX backend."""


def configured() -> ck.Optimizer:
    optimizer = ck.Optimizer("sgd", learning_rate=0.5)
    optimizer.configure_scheduler({"warmup_steps": 2})
    optimizer.configure_scheduler({"max_steps": 10, "cosine_restarts": True, "restart_period": 4})
    return optimizer


@pytest.fixture(params=CASES)
def optimizer(request: pytest.FixtureRequest) -> ck.Optimizer:
    return CASES[request.param]()


def test_every_option_has_a_case() -> None:
    """So that a new option cannot be forgotten here."""
    elsewhere = {"learning_rate", "clipnorm", "clipvalue", "global_clipnorm", "use_scheduler", "shard_state"}
    for make, all_options in ((ck.Adam, {**ADAM, **COMMON}), (ck.SGD, {**SGD, **COMMON})):
        default, everything = make().get_config(), make(**all_options).get_config()
        assert set(default) == {*all_options, *elsewhere}
        assert {name for name in all_options if default[name] == everything[name]} == set()


def test_config_is_plain_data(optimizer: ck.Optimizer) -> None:
    assert json.loads(json.dumps(optimizer.get_config())) == optimizer.get_config()


def test_from_config(optimizer: ck.Optimizer) -> None:
    back = type(optimizer).from_config(optimizer.get_config())
    assert back.get_config() == optimizer.get_config()


def test_serialize_and_deserialize(optimizer: ck.Optimizer) -> None:
    """Through JSON, as in a `.keras` file; the class must come back, not Keras' own of that name."""
    data = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    for back in (keras.optimizers.deserialize(data), keras.optimizers.get(data)):
        assert type(back) is type(optimizer)
        assert back.get_config() == optimizer.get_config()


@pytest.mark.parametrize("case", thinned(TRAINED, 2))
def test_a_deserialised_optimizer_trains_the_same(case: str) -> None:
    optimizer = CASES[case]()
    if "warmup_ratio" in optimizer.get_config():
        optimizer.attach(total_steps=20)
    back = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    if "warmup_ratio" in optimizer.get_config():
        back.attach(total_steps=20)
    grads = [ops.array(np.full(shape, 0.5, "float32")) for shape in ((3,), (2, 2))]
    results = []
    for one in (optimizer, back):
        one.jit_compile = False
        ws = variables((3,), (2, 2))
        for _ in range(4):
            one.apply(grads, ws)
        results.append(values(ws) + values(one))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_changed_rate_is_in_the_config() -> None:
    """As with Keras: the config holds the current number; a schedule stays a schedule."""
    optimizer = ck.Adam(0.5)
    optimizer.learning_rate = 0.25
    assert optimizer.get_config()["learning_rate"] == 0.25
    optimizer.learning_rate = COSINE
    assert keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)).learning_rate == optimizer.learning_rate


def test_the_rate_in_the_config_is_the_number_given() -> None:
    """Not what float32 makes of it: 0.1 stays 0.1."""
    assert ck.Adam(0.1).get_config()["learning_rate"] == 0.1


def test_changed_options_are_in_the_config() -> None:
    optimizer = ck.Adam()
    optimizer.beta_1 = 0.5
    optimizer.global_clipnorm = 2.0
    optimizer.reconfigure({"eps": 1e-3})
    config = optimizer.get_config()
    assert (config["beta_1"], config["global_clipnorm"], config["epsilon"]) == (0.5, 2.0, 1e-3)


def test_a_custom_schedule_with_custom_objects() -> None:
    class Mine(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 0.5

        def get_config(self) -> dict[str, Any]:
            return {}

    data = keras.optimizers.serialize(ck.Adam(Mine()))
    back = keras.optimizers.deserialize(data, custom_objects={"Mine": Mine})
    assert back.get_learning_rate() == 0.5


def test_before_build_only_the_step_counter_and_the_rate() -> None:
    """Keras' contract: everything else is made in `build`, in the strategy's scope."""
    assert [v.name for v in ck.Adam(use_ema=True, gradient_accumulation_steps=2).variables] == [
        "iteration",
        "learning_rate",
    ]
    assert [v.name for v in ck.Adam(COSINE).variables] == ["iteration"]
    assert [v.name for v in ck.Optimizer("adam", 0.5, **SCHEDULE).variables] == ["iteration"]


@pytest.mark.parametrize("options", [{}, {"use_ema": True, "gradient_accumulation_steps": 2, "amsgrad": True}])
def test_building_twice_does_nothing(options: dict[str, Any]) -> None:
    optimizer, ws = ck.Adam(jit_compile=False, **options), variables((2,), (3,))
    optimizer.build(ws)
    made = [id(v) for v in optimizer.variables]
    optimizer.apply([ops.ones(2), ops.ones(3)])
    before = values(optimizer)
    optimizer.build(ws)
    assert [id(v) for v in optimizer.variables] == made
    for a, b in zip(values(optimizer), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_iterations_counts_updates() -> None:
    """Neither micro-batches nor skipped updates, whatever their order."""
    w = keras.Variable([1.0])
    optimizer = ck.SGD(gradient_accumulation_steps=2, jit_compile=False)
    seen = []
    for g in [1.0, 1.0, 1.0, float("nan"), 1.0, 1.0]:
        optimizer.apply([ops.array([g])], [w])
        seen.append(int(optimizer.iterations))
    assert seen == [0, 1, 1, 1, 1, 2]
    counters = optimizer.counters()
    assert (counters["micro_steps"], counters["skipped"]) == (6, 1)


def decayed(optimizer: ck.Optimizer, layers: list[str]) -> list[str]:
    """The last parts of the paths of the variables that shrink under zero gradients."""
    ws = []
    for layer in layers:
        with keras.name_scope(layer):
            ws += [keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")]
    optimizer.apply([ops.zeros(1) for _ in ws], ws)
    return [w.path for w in ws if w.numpy().item() < 1.0]


def adamw() -> ck.AdamW:
    return ck.AdamW(0.5, weight_decay=0.5, jit_compile=False)


def test_exclusions_add_up_and_match_the_path() -> None:
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.exclude_from_weight_decay(var_names=["^norm/", "bias"])
    assert decayed(optimizer, ["dense", "norm"]) == ["dense/kernel"]


def test_exclusions_are_regular_expressions_of_the_whole_path() -> None:
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_names=["dense/ker"])
    assert decayed(optimizer, ["dense", "norm"]) == ["dense/bias", "norm/kernel", "norm/bias"]


def test_exclusions_survive_the_config() -> None:
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    back = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert back.weight_decay_exclude == ["bias"]
    assert decayed(back, ["dense"]) == ["dense/kernel"]


def test_excluded_variables_and_not_their_namesakes() -> None:
    """A variable given by itself is found by its whole path: `dense/kernel` is not `dense/kernel_2`."""
    with keras.name_scope("dense"):
        excluded, other = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="kernel_2")
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_list=[excluded])
    for one in (keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)), optimizer):
        one.apply([ops.zeros(1), ops.zeros(1)], [excluded, other])
        assert excluded.numpy().item() == 1.0
    assert other.numpy().item() == pytest.approx(0.75**2)


def test_excluded_variables_of_a_loaded_model(tmp_path: Any) -> None:
    """Loading a Sequential model drops its name from the paths; the exclusion must not go with it."""
    optimizer = ck.AdamW(0.5, weight_decay=0.5)
    model = regressor()
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    model.compile(optimizer, "mse")
    model.fit(*regression(), batch_size=32, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for m in (model, loaded):
        m.fit(*regression(), batch_size=32, shuffle=False, verbose=0)
    for a, b in zip(values(model), values(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("given", [{"var_names": ["bias"]}, {"var_list": []}, {}])
def test_excluding_after_build_is_refused(given: dict[str, Any]) -> None:
    optimizer = adamw()
    optimizer.build(variables((2,)))
    with pytest.raises(ck.ConfigError, match="built already; exclude variables before the first update"):
        optimizer.exclude_from_weight_decay(**given)

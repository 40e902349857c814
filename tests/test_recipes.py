"""Recipes: the calls of the founding document, their values, what overrides them, and why they are what they are."""

from __future__ import annotations

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

import capibara_keras as ck
from capibara_keras import Optimizer, recipes
from capibara_keras.recipes import sizes
from tests.models import regression, regressor
from tests.subprocess_runner import ROOT

LARGE = {
    "algorithm": "adamw",
    "learning_rate": 1.5e-4,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 0.1,
    "gradient_clip_norm": 1.0,
    "gradient_accumulation_steps": 8,
    "scheduler_type": "cosine_with_warmup",
    "warmup_ratio": 0.03,
    "min_lr_ratio": 0.1,
}

FINETUNE = {
    "algorithm": "adam",
    "learning_rate": 5e-5,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.01,
    "gradient_clip_norm": 0.5,
    "scheduler_type": "linear_with_warmup",
    "warmup_steps": 500,
    "layer_wise_lr_decay": 0.95,
    "differential_learning_rates": {"embedding": 0.1, "encoder": 1.0, "head": 2.0},
}


def trains(optimizer: Optimizer, epochs: int = 2) -> Optimizer:
    """The optimizer after `fit`, in which the loss stayed finite."""
    model = regressor()
    model.compile(optimizer, "mse")
    history = model.fit(*regression(), batch_size=8, epochs=epochs, verbose=0, callbacks=[ck.Attach()])
    assert np.isfinite(history.history["loss"]).all()
    assert int(ops.convert_to_numpy(optimizer.iterations)) > 0
    return optimizer


def quiet(text: str) -> None:
    pass


# As in the document -----------------------------------------------------------------------------------------
def test_large_model_as_written() -> None:
    optimizer = Optimizer.create_for_large_model(LARGE)
    optimizer.attach(total_steps=1000)
    assert optimizer.get_learning_rate(step=30) == pytest.approx(1.5e-4)
    assert optimizer.get_learning_rate(step=1000) == pytest.approx(1.5e-5)
    assert (optimizer.gradient_accumulation_steps, optimizer.global_clipnorm) == (8, 1.0)
    assert optimizer.weight_decay_exclude == ["rank<=1"]


def test_finetuning_as_written() -> None:
    optimizer = Optimizer.create_for_finetuning(FINETUNE)
    optimizer.attach(total_steps=1000)
    assert optimizer.get_learning_rate(step=500) == pytest.approx(5e-5)
    assert optimizer.configuration.algorithm == "adam"
    assert optimizer.differential_learning_rates == {"embedding": 0.1, "encoder": 1.0, "head": 2.0}


def test_factories_as_written() -> None:
    collection = {
        "pretraining_large": Optimizer.create_pretraining_optimizer(
            model_size="large", dataset_size="multi_billion_tokens", target_steps=500000
        ),
        "finetuning_fast": Optimizer.create_finetuning_optimizer(
            task_type="text_classification", dataset_size="medium", target_epochs=3
        ),
        "resource_efficient": Optimizer.create_efficient_optimizer(
            memory_budget="8GB", compute_budget="medium", prioritize="memory"
        ),
        "research_flexible": Optimizer.create_research_optimizer(
            experimental_features=True, detailed_logging=True, custom_schedulers=True
        ),
    }
    assert collection["pretraining_large"].get_learning_rate(step=2000) == pytest.approx(2.5e-4)
    assert collection["pretraining_large"].get_learning_rate(step=500000) == 0
    assert collection["research_flexible"].statistics_every == 1
    for name, optimizer in collection.items():
        trains(optimizer)
        assert len(optimizer.explain(print_fn=quiet)) > 4, name


@pytest.mark.slow
def test_the_example_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe of the document lowers the loss of the example's smallest language model in 200 updates; the one
    for pretraining, told the size, goes below what the bytes' frequencies alone give."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import language_model as lm

    updates, size, corpus = 200, lm.SIZES["tiny"], lm.read_corpus()
    held_out = lm.validation_windows(corpus.validation, 32, size.context)
    data = lm.training_batches(corpus.train, 0, updates, size, 0)
    bits = {}
    for name, optimizer in {
        "large": Optimizer.create_for_large_model(LARGE),
        "finetuning": Optimizer.create_for_finetuning(FINETUNE | {"warmup_steps": 20}),
        "pretraining": Optimizer.create_pretraining_optimizer("large", "multi_billion_tokens", updates),
        "pretraining, tiny": Optimizer.create_pretraining_optimizer("tiny", "small", updates),
        "finetuning task": Optimizer.create_finetuning_optimizer("text_classification", "medium", 3),
        "efficient": Optimizer.create_efficient_optimizer("8GB", "medium", "memory"),
        "research": Optimizer.create_research_optimizer(True, True, True),
    }.items():
        keras.utils.set_random_seed(0)
        model = lm.build_model(size)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        before = lm.bits_per_byte(model, held_out, size.batch_size)
        model.fit(*data, size.batch_size, shuffle=False, verbose=0, callbacks=[ck.Attach()])
        bits[name] = lm.bits_per_byte(model, held_out, size.batch_size)
        assert bits[name] < before - 0.05, (name, before, bits[name])
    assert bits["pretraining, tiny"] < lm.unigram_bits(corpus.train, held_out[1])


def test_decay_is_for_matrices() -> None:
    optimizer = trains(Optimizer.create_pretraining_optimizer("tiny", "small", 100))
    rows = optimizer.describe(print_fn=quiet)
    assert {row.weight_decay for row in rows if len(row.shape) <= 1} == {0.0}
    assert {row.weight_decay for row in rows if len(row.shape) > 1} == {0.1}


# Values -----------------------------------------------------------------------------------------------------
def test_rates_of_the_table() -> None:
    """Brown et al. 2020, Table 2.1."""
    for size, rate in {"125M": 6e-4, "350M": 3e-4, "760M": 2.5e-4, "1.3B": 2e-4, "13B": 1e-4, 175e9: 0.6e-4}.items():
        assert recipes.pretraining(size).options["learning_rate"] == pytest.approx(rate, rel=0.08)


@given(st.floats(1e4, 1e12), st.floats(1.0, 100.0))
def test_a_larger_model_has_no_larger_rate(size: float, factor: float) -> None:
    small, large = (recipes.pretraining(n, 1e9).options["learning_rate"] for n in (size, size * factor))
    assert 0 < large <= small * (1 + 1e-3)


@given(st.integers(2, 10**7))
def test_warmup_fits_into_the_training(steps: int) -> None:
    optimizer = Optimizer.create_pretraining_optimizer("small", "large", steps)
    assert 0 <= optimizer.get_learning_rate(step=steps) <= 1e-12
    peak = recipes.pretraining("small").options["learning_rate"]
    warm = recipes.pretraining("small", "large", steps).options["warmup_steps"]
    assert warm <= max(steps // 10, 2000)
    assert optimizer.get_learning_rate(step=warm) == pytest.approx(peak, rel=1e-5)


def test_the_root_of_the_batch() -> None:
    half = recipes.pretraining("small", "multi_billion_tokens", 100, tokens_per_batch=125_000)
    whole = recipes.pretraining("small", "multi_billion_tokens", 100)
    advised = next(a.value for a in whole.advice if a.option == "tokens per update")
    expected = whole.options["learning_rate"] * math.sqrt(125_000 / advised)
    assert half.options["learning_rate"] == pytest.approx(expected, rel=2e-3)


def test_advice_on_data() -> None:
    advice = {a.option for a in recipes.pretraining("large", "small", 10_000).advice}
    assert {"passes over the data", "tokens per parameter"} <= advice


# Overriding, keeping ----------------------------------------------------------------------------------------
def test_options_win_over_the_recipe() -> None:
    optimizer = Optimizer.create_pretraining_optimizer(
        "small", "large", 1000, beta2=0.98, clipvalue=0.5, scheduler_type="cosine_with_warmup", warmup_ratio=0.2
    )
    assert (optimizer.beta_2, optimizer.clipvalue, optimizer.global_clipnorm) == (0.98, 0.5, None)
    assert optimizer.get_learning_rate(step=200) == pytest.approx(6e-4)
    choices = {c.option: c for c in optimizer.explain(print_fn=quiet)}
    assert choices["beta_2"].reason == "given by you; the recipe has 0.95"
    assert choices["weight_decay"].source.startswith("Brown")


def test_a_rate_of_ones_own_replaces_the_schedule() -> None:
    schedule = ck.schedules.ConstantWithWarmup(1e-3)
    optimizer = Optimizer.create_pretraining_optimizer("small", "large", 1000, learning_rate=schedule)
    assert optimizer.get_learning_rate(step=999) == pytest.approx(1e-3)


def test_another_algorithm_keeps_only_what_it_has() -> None:
    optimizer = Optimizer.create_pretraining_optimizer("small", "large", 1000, algorithm="lion")
    assert (optimizer.configuration.algorithm, optimizer.beta_2) == ("lion", 0.95)


def test_explanations_survive_saving(tmp_path) -> None:
    optimizer = Optimizer.create_finetuning_optimizer("image_classification", "small", 5)
    again = Optimizer.from_config(json.loads(json.dumps(optimizer.get_config())))
    texts: list[str] = []
    first, second = optimizer.explain(texts.append), again.explain(texts.append)
    assert texts[0] == texts[1] and [dict(c) for c in first] == [dict(c) for c in second]
    model = regressor()
    model.compile(optimizer, "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.configuration.recipe["task_type"] == "image_classification"


def test_without_a_recipe_nothing_is_made_up() -> None:
    choices = {c.option: c for c in Optimizer("adam", learning_rate=0.5).explain(print_fn=quiet)}
    assert choices["learning_rate"].reason == "given by you"
    assert choices["beta_1"].reason.startswith("default")
    assert "recipe" not in choices
    named = {c.option: c.reason for c in ck.AdamW(weight_decay=0.1).explain(print_fn=quiet)}
    assert named["epsilon"].startswith("default") and named["weight_decay"] == "given by you"


def test_a_schedule_is_used_by_itself_and_advice_is_called_advice() -> None:
    texts: list[str] = []
    optimizer = Optimizer.create_finetuning_optimizer("text_classification", "small", 3)
    choices = {c.option: c for c in optimizer.explain(texts.append)}
    assert choices["use_scheduler"].reason.startswith("default") and choices["epochs"].value == 20
    assert "advice: epochs = 20" in texts[0] and "\nepochs" not in texts[0]
    optimizer.use_scheduler = False
    reasons = {c.option: c.reason for c in optimizer.explain(print_fn=quiet)}
    assert reasons["use_scheduler"] == "given by you"


# Memory -----------------------------------------------------------------------------------------------------
def network() -> keras.Model:
    return keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(128), keras.layers.BatchNormalization(), keras.layers.Dense(96)]
    )


def kept(optimizer: Optimizer) -> int:
    """Bytes of all variables that belong to variables of the model."""
    small = {"counters", "statistics", "variable_norms", "losses", "hyperparameters", "iteration", "learning_rate"}
    return sum(
        math.prod(v.shape) * np.dtype(keras.backend.standardize_dtype(v.dtype).replace("bfloat16", "float16")).itemsize
        for v in optimizer.variables
        if v.name not in small and len(v.shape) > 0
    )


@pytest.mark.parametrize("algorithm", [a.name for a in ck.algorithms()])
def test_memory_is_what_is_measured(algorithm: str) -> None:
    model, optimizer = network(), Optimizer(algorithm, use_ema=True, gradient_accumulation_steps=2)
    before = optimizer.memory_report(model)
    optimizer.build(model.trainable_variables)
    assert before == optimizer.memory_report(model)
    measured = kept(optimizer)
    assert before.slots + before.averages + before.accumulators == pytest.approx(measured, rel=0.05)
    weights = sum(math.prod(v.shape) * 4 for v in model.variables)
    assert before.parameters == weights
    assert before.total == before.parameters + before.gradients + before.slots + before.averages + before.accumulators


@pytest.mark.parametrize(("precision", "share"), [("bfloat16", 0.5), ("8bit", 0.27)])
def test_memory_of_fewer_bits(precision: str, share: float) -> None:
    model = keras.Sequential([keras.Input((256,)), keras.layers.Dense(256, use_bias=False)])
    full, less = (Optimizer("adamw", state_precision=p).memory_report(model).slots for p in ("float32", precision))
    assert less <= share * full


def test_the_best_that_fits() -> None:
    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, use_bias=False)])
    matrix = 512 * 512 * 4  # parameters and gradients take two, AdamW two more
    chosen = {
        size: Optimizer.create_efficient_optimizer(size * matrix, model=model).state_precision
        for size in (4.0, 3.1, 2.6)
    }
    assert chosen == {4.0: "float32", 3.1: "bfloat16", 2.6: "8bit"}
    with pytest.raises(ck.ConfigError, match=r"too much\. Give at least"):
        Optimizer.create_efficient_optimizer(1.5 * matrix, model=model)
    for size in (4.0, 2.6):
        optimizer = Optimizer.create_efficient_optimizer(size * matrix, model=model)
        assert optimizer.memory_report(model).total <= size * matrix


def test_priorities() -> None:
    model = keras.Sequential([keras.Input((512,)), keras.layers.Dense(512, use_bias=False)])
    made = {
        (compute, first): Optimizer.create_efficient_optimizer(
            "1GB", compute, first, model=model
        ).configuration.algorithm
        for compute, first in [("medium", "quality"), ("medium", "memory"), ("low", "speed"), ("low", "quality")]
    }
    assert made["medium", "quality"] == "adamw"
    assert made["medium", "memory"] == "adafactor"
    assert made["low", "speed"] == "sgd"
    assert made["low", "quality"] == "lion"


def test_decided_when_the_variables_are_known() -> None:
    matrix = 512 * 512 * 4
    optimizer = Optimizer.create_efficient_optimizer(2.3 * matrix, learning_rate=2e-3, weight_decay=0.3)
    assert optimizer.state_precision == "float32"
    optimizer.build([keras.Variable(np.zeros((512, 512), "float32"))])
    assert (optimizer.configuration.algorithm, optimizer.state_precision) == ("lion", "8bit")
    assert float(optimizer.learning_rate) == pytest.approx(2e-4 * 2)
    assert optimizer.weight_decay == 0.3
    again = Optimizer.from_config(optimizer.get_config())
    again.build([keras.Variable(np.zeros((512, 512), "float32"))])
    assert (again.configuration.algorithm, again.state_precision) == ("lion", "8bit")
    with pytest.raises(ck.ConfigError, match="memory_budget"):
        Optimizer.create_efficient_optimizer("1MB").build([keras.Variable(np.zeros((512, 512), "float32"))])


# Research ---------------------------------------------------------------------------------------------------
def test_experimental_features_must_be_allowed() -> None:
    with pytest.raises(ck.ConfigError, match="experimental_features=True"):
        Optimizer.create_research_optimizer(algorithm="prodigy")
    assert Optimizer.create_research_optimizer(True, algorithm="prodigy").configuration.algorithm == "prodigy"


@keras.saving.register_keras_serializable(package="tests")
def hyperbola(step):
    """A schedule."""
    return 0.1 / (1.0 + ops.cast(step, "float32"))


def test_functions_as_schedules() -> None:
    optimizer = trains(Optimizer.create_research_optimizer(custom_schedulers=True, learning_rate=hyperbola), 1)
    again = Optimizer.from_config(optimizer.get_config())
    assert again.get_learning_rate(step=4) == pytest.approx(0.02)
    unsaved = Optimizer.create_research_optimizer(custom_schedulers=True, learning_rate=lambda step: 0.1)
    with pytest.raises(ck.ConfigError, match="register_keras_serializable"):
        unsaved.get_config()


# Bad input --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Optimizer.create_pretraining_optimizer("larg"), "Did you mean 'large'"),
        (lambda: Optimizer.create_pretraining_optimizer(-5), "model_size"),
        (lambda: Optimizer.create_pretraining_optimizer("1.3.5B"), "is not a number"),
        (lambda: Optimizer.create_pretraining_optimizer("small", "huge"), "unknown dataset_size 'huge'"),
        (lambda: Optimizer.create_pretraining_optimizer("small", "large", 1), "target_steps"),
        (lambda: Optimizer.create_pretraining_optimizer("small", "large", 10, weigth_decay=1), "weight_decay"),
        (lambda: Optimizer.create_finetuning_optimizer("text_clasification"), "Did you mean 'text_classification'"),
        (lambda: Optimizer.create_finetuning_optimizer(target_epochs=0), "target_epochs"),
        (lambda: Optimizer.create_efficient_optimizer("8 gigs"), "units B, KB"),
        (lambda: Optimizer.create_efficient_optimizer("8GB", compute_budget="hgih"), "Did you mean 'high'"),
        (lambda: Optimizer.create_efficient_optimizer("8GB", prioritize="sped"), "Did you mean 'speed'"),
        (lambda: Optimizer.create_research_optimizer(detailed_logging="yes"), "detailed_logging"),
        (lambda: Optimizer("adam", recipe="pretraining"), "recipe"),
        (lambda: ck.AdamW().memory_report(), "memory_report"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        call()


@given(st.sampled_from(sorted(sizes.MODELS)), st.sampled_from(sorted(sizes.DATASETS)))
def test_names_are_numbers(model: str, data: str) -> None:
    named, plain = recipes.pretraining(model, data), recipes.pretraining(sizes.MODELS[model], sizes.DATASETS[data])
    assert {**named.options, "recipe": 0} == {**plain.options, "recipe": 0}

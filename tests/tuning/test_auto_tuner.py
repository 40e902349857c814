"""A search from the outside: what it returns, what it leaves as it was, what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import capibara_keras as ck
from capibara_keras import OptimizerAutoTuner
from capibara_keras.tuning import Halving
from capibara_keras.tuning.batches import Batches
from tests.models import values
from tests.tuning.common import SPACE, Traces, data, network, search, tuner


def traces(model: keras.Model) -> int:
    """How often its train step was traced."""
    return next(layer.count for layer in model.layers if isinstance(layer, Traces))


def accuracy(model: keras.Model) -> float:
    """On the validation data."""
    return float(model.evaluate(*data()[1], verbose=0, return_dict=True)["accuracy"])


def test_the_seeds_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, but for fewer and shorter trials."""
    monkeypatch.chdir(tmp_path)
    model, (train_data, val_data) = network(), data()
    auto_tuner = OptimizerAutoTuner(
        search_space={
            "learning_rate": [1e-5, 1e-3, "log"],
            "beta1": [0.85, 0.95, "uniform"],
            "beta2": [0.9, 0.999, "uniform"],
            "weight_decay": [0.0, 0.2, "uniform"],
            "warmup_steps": [5, 50, "int"],
            "gradient_clip_norm": [0.1, 2.0, "uniform"],
        },
        optimization_metric="validation_loss",
        search_algorithm="bayesian_optimization",
        max_trials=10,
    )
    optimal_config = auto_tuner.find_optimal_hyperparameters(
        model=model,
        train_dataset=train_data,
        val_dataset=val_data,
        max_steps_per_trial=40,
        early_stopping_patience=20,
    )
    optimizer = ck.Optimizer.from_config(optimal_config)
    assert optimizer.get_learning_rate(step=50) == pytest.approx(optimal_config["learning_rate"])
    assert optimal_config["algorithm"] == "adam" and optimal_config["scheduler_type"] == "constant_with_warmup"
    assert traces(model) == 1
    assert len(auto_tuner.trials) == 10 and auto_tuner.best is not None
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 10 and "left" in printed[0]
    assert auto_tuner.table().count("\n") == 10


@pytest.mark.slow
def test_the_model_is_given_back(tmp_path: Path) -> None:
    """Weights, optimizer, random numbers, and its own train function."""
    train, _ = data()
    model, other = (network(optimizer=ck.SGD(0.1, momentum=0.9)) for _ in range(2))
    for m in (model, other):
        m.fit(*train, verbose=0, shuffle=False)
    optimizer, traced = model.optimizer, traces(model)
    search(tuner(tmp_path, {"learning_rate": [1e-3, 1.0, "log"]}, trials=3), model)
    assert model.optimizer is optimizer
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(a, b)
    before = traces(model)
    assert before == traced + 1
    for m in (model, other):
        m.fit(*train, verbose=0, shuffle=False)
    assert traces(model) == before, "its own train step is traced again"
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_trials_do_not_depend_on_those_before(tmp_path: Path) -> None:
    """The same configuration, alone and as the third of a search, gives the same numbers to the bit."""
    found = tuner(tmp_path / "many", search_algorithm="random", early_termination="none")
    search(found)
    third = found.trials[2]
    space: dict[str, Any] = {**third.options, "beta1": [third.options["beta1"], "choice"]}
    alone = tuner(tmp_path / "one", space | {"foreach": [True, False, "choice"]}, trials=1, early_termination="none")
    search(alone)
    assert alone.trials[0].curve["val_loss"] == third.curve["val_loss"]


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 5))])
def test_a_trial_is_what_the_result_says(seed: int, tmp_path: Path) -> None:
    """An ordinary `fit` with the returned configuration repeats the best trial: schedule, clipping and all."""
    space = {
        "algorithm": ["adamw", "sgd", "choice"],
        "learning_rate": [1e-3, 0.3, "log"],
        "momentum": [0.1, 0.9, "uniform"],
        "scheduler_type": ["cosine_with_warmup", "linear_with_warmup", "choice"],
        "warmup_steps": [1, 500, "int"],
        "gradient_clip_norm": [0.1, 1.0, "log"],
        "weight_decay_mode": ["independent", "decoupled", "choice"],
        "weight_decay": [1e-3, 1e-2, "log"],
        "gradient_accumulation_steps": [1, 3, "int"],
    }
    found = tuner(tmp_path, space, trials=3, seed=seed, early_termination="none")
    config = search(found, steps=16)
    assert config["warmup_steps"] < config["max_steps"] == 16 // config["gradient_accumulation_steps"]
    model, (train, validation) = network(optimizer=ck.Optimizer.from_config(config)), data()
    batches = Batches(train, 32, 16, seed)
    options = {"validation_data": validation, "shuffle": False, "verbose": 0, "callbacks": [ck.Attach()]}
    history = model.fit(batches, steps_per_epoch=1, epochs=16, **options)
    best = found.best
    assert best is not None
    np.testing.assert_allclose(history.history["val_loss"], best.curve["val_loss"], rtol=2e-5)


@pytest.mark.parametrize("mode", ["corrected", pytest.param("independent", marks=pytest.mark.slow)])
def test_decay_relative_to_the_peak_is_what_the_result_says(mode: str, tmp_path: Path) -> None:
    """Trials have no schedule whose peak could be told: the decay is made to fit, that of groups too."""
    groups = [{"pattern": "bias", "weight_decay": 3.0}]
    options = {"weight_decay": 2.0, "weight_decay_mode": mode, "groups": groups, "warmup_steps": 3}
    found = tuner(tmp_path, {"learning_rate": [0.01, 0.05, "log"]}, trials=1)
    config = search(found, network(optimizer=ck.SGD(0.1, **options)), steps=8)
    model, (train, validation) = network(optimizer=ck.Optimizer.from_config(config)), data()
    options = {"validation_data": validation, "shuffle": False, "verbose": 0, "callbacks": [ck.Attach()]}
    history = model.fit(Batches(train, 32, 8, 0), steps_per_epoch=1, epochs=8, **options)
    np.testing.assert_allclose(history.history["val_loss"], found.trials[0].curve["val_loss"], rtol=2e-5)


@pytest.mark.slow
def test_structures_are_traced_once_each(tmp_path: Path) -> None:
    """Two algorithms, two traces, however often they alternate."""
    space = {"algorithm": ["adam", "sgd", "choice"], "learning_rate": [1e-3, 0.3, "log"]}
    model = network()
    found = tuner(tmp_path, space, trials=8, search_algorithm="random")
    search(found, model, steps=8)
    algorithms = [t.options["algorithm"] for t in found.trials]
    assert set(algorithms) == {"adam", "sgd"} and algorithms != sorted(algorithms)
    assert traces(model) == 2


@pytest.mark.slow
def test_best_weights(tmp_path: Path) -> None:
    """Those of the best trial at its best step, and the only ones that are kept."""
    found = tuner(tmp_path, trials=6)
    search(found, steps=32)
    model = network(optimizer=ck.SGD())
    found.load_best_weights(model)
    loss = float(model.evaluate(*data()[1], verbose=0, return_dict=True)["loss"])
    assert found.best is not None and loss == pytest.approx(found.best.score, rel=1e-5)
    assert len(list(found.project.folder.glob("*.h5"))) == 1


@pytest.mark.slow
def test_maximising(tmp_path: Path) -> None:
    found = tuner(tmp_path, trials=5, optimization_metric="validation_accuracy", early_termination="none")
    search(found)
    scores = [max(t.curve["val_accuracy"]) for t in found.trials]
    assert found.best is not None and found.best.score == max(scores)
    model = network()
    found.load_best_weights(model)
    assert accuracy(model) == pytest.approx(max(scores), abs=1e-6)


def test_patience(tmp_path: Path) -> None:
    """A rate of nearly zero never improves enough to go on for ever; one of zero not at all."""
    space = {"learning_rate": 0.0, "beta1": [0.1, 0.9, "uniform"]}
    found = tuner(tmp_path, space, trials=1)
    search(found, steps=64, early_stopping_patience=12)
    assert found.trials[0].status == "completed"
    assert 12 <= found.trials[0].steps - 4 < 12 + 4


@pytest.mark.slow
def test_early_termination_compares_at_the_rungs(tmp_path: Path) -> None:
    found = tuner(tmp_path, {"learning_rate": [1e-6, 1e-1, "log"]}, trials=8, search_algorithm="random")
    search(found, steps=64)
    at = {t.number: t.steps for t in found.trials if t.status == "pruned"}
    assert at and set(at.values()) <= {8, 24}
    first = [min(t.curve["val_loss"][:2]) for t in found.trials]
    for number, steps in at.items():
        if steps == 8:
            better = sum(x < first[number] for x in first[:number])
            assert better >= math.ceil((number + 1) / 2)
    assert found.trials[0].status == "completed"


@pytest.mark.slow
def test_no_rung_before_the_rate_is_up(tmp_path: Path) -> None:
    space = {"learning_rate": [1e-5, 1e-1, "log"], "warmup_steps": [30, 40, "int"]}
    found = tuner(tmp_path, space, trials=6, search_algorithm="random", early_termination=Halving((0.2, 0.8)))
    search(found, steps=60)
    pruned = [t.steps for t in found.trials if t.status == "pruned"]
    assert pruned and set(pruned) == {48}


# Where the metric is not finite --------------------------------------------------------------------------


@pytest.mark.slow
def test_divergence_is_penalised_and_never_the_end(tmp_path: Path) -> None:
    """Rates above a limit end in NaN."""
    space = {"learning_rate": [1e-3, 1e20, "log"], "momentum": [0.0, 0.9, "uniform"], "nonfinite": "propagate"}
    found = tuner(tmp_path, space | {"algorithm": "sgd"}, trials=14)
    config = search(found, steps=16)
    statuses = [t.status for t in found.trials]
    assert statuses.count("diverged") >= 3
    assert found.best is not None and math.isfinite(found.best.score) and found.best.status == "completed"
    assert ck.Optimizer.from_config(config)
    late = [t.options["learning_rate"] for t in found.trials if t.number >= 8]
    limit = min(t.options["learning_rate"] for t in found.trials if t.status == "diverged")
    assert sum(rate >= limit for rate in late) <= 2


def test_all_diverge(tmp_path: Path) -> None:
    space = {"learning_rate": [1e25, 1e30, "log"], "algorithm": "sgd", "nonfinite": "propagate"}
    with pytest.raises(ck.TuningError, match=r"no trial completed: 4 diverged.*lower learning rates"):
        search(tuner(tmp_path, space))
    assert len(json.loads((tmp_path / "search" / "search.json").read_text())["trials"]) == 4


def failing(when: Callable[[int], bool]) -> Callable[[], Any]:
    """Data that fail in some trials, after the call that looks at them."""
    calls = [-1]

    def batches() -> Any:
        calls[0] += 1
        if when(calls[0]):
            raise OSError("the disk is gone")
        return data()[0]

    return batches


def test_a_trial_that_fails_is_no_reason_to_stop(tmp_path: Path) -> None:
    found = tuner(tmp_path, trials=5)
    with pytest.warns(UserWarning, match="trial 2 failed: OSError: the disk is gone"):
        found.find_optimal_hyperparameters(network(), failing(lambda n: n == 2), data()[1], 8)
    assert [t.status == "failed" for t in found.trials] == [False, False, True, False, False]
    assert "the disk is gone" in found.trials[2].message


@pytest.mark.filterwarnings("ignore:trial")
def test_if_all_fail_it_is_not_the_configurations(tmp_path: Path) -> None:
    """The error says why; once it is mended, the search takes the same configurations again."""
    found = tuner(tmp_path)
    with pytest.raises(ck.TuningError, match=r"the first 3 trials all failed.*OSError: the disk is gone"):
        found.find_optimal_hyperparameters(network(), failing(lambda n: True), data()[1], 8)
    again = tuner(tmp_path)
    search(again, steps=8)
    assert [t.status == "failed" for t in again.trials] == [False] * 4
    assert [t.options for t in again.trials][:3] == [t.options for t in found.trials]


@pytest.mark.filterwarnings("ignore:trial")
def test_failures_after_trials_that_worked_are_no_reason_to_stop(tmp_path: Path) -> None:
    """Also in a process that did not see them work."""
    search(tuner(tmp_path, trials=1), steps=8)
    found = tuner(tmp_path, trials=4)
    config = found.find_optimal_hyperparameters(network(), failing(lambda n: True), data()[1], 8)
    assert [t.status for t in found.trials] == ["completed", "failed", "failed", "failed"]
    assert config["learning_rate"] == found.trials[0].options["learning_rate"]


# Data and models -----------------------------------------------------------------------------------------


class Dataset(keras.utils.PyDataset):
    """The training data in batches of 64."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        x, y = data()[0]
        return x[64 * index : 64 * index + 64], y[64 * index : 64 * index + 64]


def generator() -> Any:
    """The same batches, once."""
    yield from (Dataset()[i] for i in range(4))


FORMS: dict[str, tuple[Any, Any]] = {
    "tf.data": (lambda: tf.data.Dataset.from_tensor_slices(data()[0]).batch(64), "same"),
    "PyDataset": (lambda: Dataset(), "same"),
    "list of batches": (lambda: list(generator()), "same"),
    "function of a generator": (lambda: generator, "same"),
    "function of tf.data": (lambda: lambda: tf.data.Dataset.from_tensor_slices(data()[0]).batch(64), "same"),
}


@pytest.mark.slow
def test_forms_of_data(tmp_path: Path) -> None:
    """All give the same batches, hence the same curve, over more than one pass."""
    curves = {}
    for name, (form, _) in FORMS.items():
        found = tuner(tmp_path / name, trials=1)
        found.find_optimal_hyperparameters(network(), form(), form(), 8)
        curves[name] = found.trials[0].curve["val_loss"]
    first = curves["tf.data"]
    for name, curve in curves.items():
        np.testing.assert_allclose(curve, first, rtol=1e-5, err_msg=name)


def test_arrays_come_in_the_same_order_in_every_trial() -> None:
    x = np.arange(10)
    one, two = (Batches((x,), 4, 9, seed=3) for _ in range(2))
    a, b = ([batches[i][0].tolist() for i in range(9)] for batches in (one, two))
    assert a == b
    for epoch in range(3):
        assert sorted(row for batch in a[3 * epoch : 3 * epoch + 3] for row in batch) == x.tolist()
    assert a[:3] != a[3:6]


@pytest.mark.slow
def test_a_function_that_makes_the_model(tmp_path: Path) -> None:
    """Called once; or for every trial, with the same start."""
    made: list[keras.Model] = []

    def build() -> keras.Model:
        made.append(network())
        return made[-1]

    once, always = tuner(tmp_path / "once", trials=3), tuner(tmp_path / "always", trials=3)
    search(once, build)
    assert len(made) == 1
    search(always, build, rebuild_model=True)
    assert len(made) == 1 + 1 + 3
    assert [t.score for t in once.trials] == pytest.approx([t.score for t in always.trials], rel=1e-6)


@pytest.mark.slow
def test_the_models_own_optimizer_is_the_base(tmp_path: Path) -> None:
    """What is not searched stays as it was, and is in the result."""
    model = network(optimizer=ck.SGD(0.3, momentum=0.7, nesterov=True, global_clipnorm=0.5))
    config = search(tuner(tmp_path, {"learning_rate": [1e-3, 1.0, "log"]}, trials=2), model)
    assert config["algorithm"] == "sgd" and config["momentum"] == 0.7 and config["nesterov"]
    assert config["global_clipnorm"] == 0.5
    assert ck.Optimizer.from_config(config).momentum == 0.7


@pytest.mark.slow
def test_a_model_that_is_not_compiled(tmp_path: Path) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = tuner(tmp_path, trials=2)
    with pytest.raises(ck.ConfigError, match="model: it is not compiled"):
        search(found, network(compiled=False))
    assert search(found, network(compiled=False), loss=loss)["learning_rate"] > 0


OVER: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "another algorithm": (
        {"algorithm": "sgd", "momentum": 0.9},
        {"algorithm": ["adam", "sgd", "choice"], "learning_rate": [1e-3, 1e-2, "log"]},
        set(),
    ),
    "a fixed algorithm": (
        {"algorithm": "sgd", "momentum": 0.9},
        {"algorithm": "adam", "learning_rate": [1e-3, 1e-2, "log"]},
        {"momentum"},
    ),
    "another name": ({"algorithm": "adam", "beta_1": 0.5}, {"beta1": [0.8, 0.9, "uniform"]}, {"beta_1"}),
    "another clipping": ({"algorithm": "adam", "clipnorm": 9.0}, {"global_clipnorm": [0.1, 1.0, "log"]}, {"clipnorm"}),
    "another warmup": (
        {"algorithm": "adam", "scheduler_type": "linear_with_warmup", "warmup_ratio": 0.1},
        {"warmup_steps": [1, 3, "int"]},
        {"warmup_ratio"},
    ),
}
"""Options of the model's optimizer, the space, and what of the options gives way."""
QUICK = ("another algorithm", "another name")


@pytest.mark.parametrize(
    "options, space, gone",
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name not in QUICK)) for name, case in OVER.items()],
)
def test_what_is_searched_wins_over_the_models_optimizer(
    options: dict[str, Any], space: dict[str, Any], gone: set[str], tmp_path: Path
) -> None:
    """Also in another name, and over what it excludes: both were errors, about options that nobody had searched."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(ck.Optimizer(learning_rate=1e-3, **options), loss=loss, run_eagerly=True)
    found = tuner(tmp_path, space, trials=2, search_algorithm="random", early_termination="none")
    config = search(found, model, steps=8)
    assert [t.status for t in found.trials] == ["completed"] * 2
    assert not gone & config.keys() and ck.Optimizer.from_config(config)
    assert all(
        config[name] == value for name, value in options.items() if name not in (gone | space.keys() | {"momentum"})
    )


@pytest.mark.slow
def test_a_model_compiled_with_another_loss_keeps_its_optimizer(tmp_path: Path) -> None:
    model, loss = network(optimizer=ck.SGD(0.1, momentum=0.5)), keras.losses.SparseCategoricalCrossentropy(True)
    config = search(tuner(tmp_path, {"learning_rate": [0.01, 0.1, "log"]}, trials=1), model, steps=8, loss=loss)
    assert config["algorithm"] == "sgd" and config["momentum"] == 0.5
    with pytest.raises(ck.ConfigError, match=r"metrics: only together with loss, received metrics=\['accuracy'\]"):
        search(tuner(tmp_path), model, metrics=["accuracy"])


def test_a_model_for_one_batch_size(tmp_path: Path) -> None:
    """Arrays are evaluated in batches of the size that was given, from the first look on."""
    model = keras.Sequential([keras.Input(batch_shape=(16, 64)), keras.layers.Dense(10)])
    model.add(keras.layers.Reshape((10,)))
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    (x, y), (held_x, held_y) = data()
    found = tuner(tmp_path, {"learning_rate": [0.01, 0.1, "log"]}, trials=1)
    found.find_optimal_hyperparameters(model, (x, y), (held_x[:32], held_y[:32]), 8, batch_size=16)
    assert found.trials[0].status == "completed"


# Bad input -----------------------------------------------------------------------------------------------

ONCE = "can be iterated only once.*lambda"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "algorithm": ({"search_algorithm": "bayesian_optimisation"}, "Did you mean 'bayesian_optimization'"),
    "trials": ({"max_trials": 0}, "max_trials: expected a whole number >= 1, received 0"),
    "grid": ({"search_algorithm": "grid", "max_trials": 7}, "max_trials: the smallest grid.*8 points"),
    "metric": ({"optimization_metric": None}, "optimization_metric: expected a name"),
    "direction": ({"direction": "down"}, "unknown direction 'down'"),
    "termination": ({"early_termination": "halving"}, "Did you mean 'successive_halving'"),
    "seed": ({"seed": -1}, "seed"),
    "directory": ({"directory": None}, "directory: expected the name of a folder, received None"),
    "overwrite": ({"overwrite": "no"}, "overwrite: expected True or False"),
}


@pytest.mark.parametrize("options, message", BAD.values(), ids=BAD)
def test_bad_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        OptimizerAutoTuner(SPACE, **({"directory": tmp_path} | options))


def test_bad_searches(tmp_path: Path) -> None:
    """Before the first trial, and without a file."""
    train, validation = data()
    model = network()
    endless = tf.data.Dataset.from_tensor_slices(train).batch(8).repeat()
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((model, train, validation, 0), {}, "max_steps_per_trial"),
        ((model, train, validation, 8, 0), {}, "early_stopping_patience"),
        ((model, train, validation, 8), {"validation_interval": 9}, "validation_interval"),
        ((model, generator(), validation, 8), {}, "train_dataset.*" + ONCE),
        ((model, train, generator(), 8), {}, "val_dataset.*" + ONCE),
        ((model, 3, validation, 8), {}, "train_dataset: expected arrays"),
        ((model, (train[0], train[1][:5]), validation, 8), {}, r"of one length, received lengths \[5, 256\]"),
        ((model, train, endless, 8), {}, "val_dataset: it never ends"),
        ((model, train, [], 8), {}, "val_dataset: it holds no batch"),
        ((model, [], validation, 8), {}, "train_dataset: it holds no batch"),
        (
            (model, (train[0].tolist(), train[1].tolist()), validation, 8),
            {},
            "received a tuple of list, list; make arrays",
        ),
        ((model, list(train), validation, 8), {}, "train_dataset.*received a list of arrays. Arrays are in a tuple"),
        ((model, train, validation, 8), {"batch_size": 0}, "batch_size: expected a whole number >= 1"),
        ((model, train, validation, 8), {"validation_steps": 0}, "validation_steps"),
        ((model, train, validation, 8), {"rebuild_model": "yes"}, "rebuild_model: expected True or False"),
        (("model", train, validation, 8), {}, "model: expected a Keras model"),
        ((model, train, validation, 8), {"distribution_strategy": 3}, "distribution_strategy: "),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ck.ConfigError, match=message):
            tuner(tmp_path).find_optimal_hyperparameters(*arguments, **options)
    assert not (tmp_path / "search").exists()


def test_a_metric_that_the_model_does_not_report(tmp_path: Path) -> None:
    found = tuner(tmp_path, optimization_metric="val_perplexity")
    with pytest.raises(ck.ConfigError, match=r"does not report 'val_perplexity'. It reports .*val_loss"):
        search(found)
    with pytest.raises(ck.ConfigError, match="Did you mean 'val_accuracy'"):
        search(tuner(tmp_path, optimization_metric="validation_acuracy"))


def test_a_rate_that_no_trial_could_use(tmp_path: Path) -> None:
    """Said before the first one, and not by three failures."""
    space = {"beta1": [0.8, 0.9, "uniform"]}
    with pytest.raises(ck.ConfigError, match="learning_rate: the tuner needs a number or a schedule"):
        search(tuner(tmp_path, space), network(optimizer=ck.Adam(lambda: 0.1)))
    assert not (tmp_path / "search").exists()


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "search").write_text("mine")
    with pytest.raises(ck.ConfigError, match="directory: cannot write in"):
        search(tuner(tmp_path))
    assert (tmp_path / "search").read_text() == "mine"


@pytest.mark.parametrize("space", [5, None, [("learning_rate", [0.1, 0.2, "log"])]])
def test_a_space_that_is_none(space: Any) -> None:
    with pytest.raises(ck.ConfigError, match="search_space: expected a dictionary"):
        OptimizerAutoTuner(space)


def test_a_schedule_needs_warmups_that_end(tmp_path: Path) -> None:
    space = {"scheduler_type": ["cosine_with_warmup", "linear_with_warmup", "choice"], "warmup_steps": [20, 90, "int"]}
    with pytest.raises(ck.ConfigError, match="warmup_steps: the range starts at 20, and must not exceed 15"):
        search(tuner(tmp_path, space))

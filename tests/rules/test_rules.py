"""All algorithms on every road: against papers and libraries, compiled or not, on JAX, skipped, saved, resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.config import parse
from capibara_keras.rules import RULES
from capibara_keras.rules.muon import orthogonalized
from capibara_keras.rules.radam import effective_samples
from capibara_keras.types import Scalars
from tests.rules import cases
from tests.rules.transcriptions import TRANSCRIPTIONS
from tests.subprocess_runner import run
from tests.thinning import thinned

LIMIT = 1e-6
REPORTS = ("counters", "statistics", "variable_norms")

each_case = pytest.mark.parametrize("case", cases.CASES)
each_rule = pytest.mark.parametrize("rule", RULES)


def assert_close(found: Any, expected: Any, limit: float = LIMIT) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=limit)


def test_every_rule_has_a_case() -> None:
    assert {cases.algorithm(case) for case in cases.CASES} | {"adam"} == set(RULES) == set(TRANSCRIPTIONS)


@pytest.mark.parametrize("case", cases.PUBLISHED)
def test_the_transcription_gives_what_libraries_give(case: str) -> None:
    library, entry = cases.PUBLISHED[case]
    assert_close(cases.expected(case, list(cases.gradients()))[:1], [cases.DATA[library][entry]], 1e-9)


# Numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", thinned(cases.CASES, 4))
def test_five_updates_without_jit(case: str) -> None:
    assert_close(cases.plain(case, jit_compile=False), cases.expected(case, list(cases.gradients())))


@functools.cache
def in_windows(case: str) -> cases.Run:
    """Compiled, with accumulation and clipping; tests that go on from there share it."""
    return cases.windows(case)


@pytest.mark.parametrize("case", thinned(cases.CASES, 3))
def test_windows_and_clipping(case: str) -> None:
    found = [np.array(w) for w in in_windows(case).first]
    assert_close(found, cases.expected(case, list(cases.clipped_windows())))


@pytest.fixture(scope="module")
def jax() -> dict[str, Any]:
    return run(Path(cases.__file__), backend="jax")


@each_case
def test_jax(case: str, jax: dict[str, Any]) -> None:
    assert_close(jax[case], cases.expected(case, list(cases.clipped_windows())))


@pytest.mark.slow
def test_two_replicas() -> None:
    """Every case, with half of each gradient on each replica: in the sum it is the same update."""
    found = run(Path(cases.__file__), ["replicas"], devices=2, timeout=900)
    grads = list(cases.clipped_windows())
    assert set(found) == set(cases.CASES)
    for case, weights in found.items():
        assert_close(weights, cases.expected(case, grads))


AS_IN_KERAS: dict[str, dict[str, Any]] = {
    "Adagrad": {"epsilon": 1e-12},
    "Adadelta": {"weight_decay": 0.1},
    "Adamax": {"weight_decay": 0.1},
    "Ftrl": {"l1_regularization_strength": 0.01, "beta": 0.5},
    "Lion": {"weight_decay": 0.1},
    "RMSprop": {"epsilon": 1e-12, "momentum": 0.9, "centered": True},
    "Nadam": {"epsilon": 1e-12, "weight_decay": 0.1},
    "Lamb": {"epsilon": 1e-12},
    "Adafactor": {},
}
DIFFERENT = {"Nadam": {"momentum_decay": 1.0}, "Adafactor": {"min_dim_size_to_factor": 1}}
"""Options of ours that make it what Keras has."""


@pytest.mark.parametrize("name", AS_IN_KERAS)
def test_keras_has_the_same_numbers(name: str) -> None:
    """Where docs/deviations.md says nothing else: epsilon is so small that its place does not matter."""
    ends = []
    for package, more in ((ck, {"jit_compile": False} | DIFFERENT.get(name, {})), (keras.optimizers, {})):
        ws = [keras.Variable(w, name=f"w{i}", dtype="float32") for i, w in enumerate(cases.weights())]
        optimizer = getattr(package, name)(learning_rate=0.01, **AS_IN_KERAS[name], **more)
        for grads in cases.gradients():
            optimizer.apply([ops.convert_to_tensor(g, "float32") for g in grads], ws)
        ends.append([w.numpy() for w in ws])
    assert_close(*ends, limit=2e-6)


# State -------------------------------------------------------------------------------------------------------


def bits(of: cases.Run) -> dict[str, bytes]:
    """Weights and state, without what only reports."""
    state = [v for v in of.optimizer.variables if v.name not in REPORTS]
    return {v.path: ops.convert_to_numpy(v).tobytes() for v in (*of.variables, *state)}


@each_case
def test_a_bad_window_changes_nothing(case: str) -> None:
    """And what follows is what would have followed."""
    ongoing = in_windows(case)
    before, good = bits(ongoing), next(cases.gradients())
    for bad in (np.nan, np.inf, -np.inf):
        broken = [g.copy() for g in good]
        broken[0][1, 1] = bad
        ongoing.apply(good)
        ongoing.apply(broken)
        assert bits(ongoing) == before, bad


@each_case
def test_saved_and_resumed(case: str) -> None:
    """State goes into a new optimizer bit for bit, and a run that is set back goes the same way again."""
    ongoing, store = in_windows(case), {}
    ongoing.optimizer.save_own_variables(store)
    saved, here = bits(ongoing), [w.copy() for w in ongoing.values()]
    other = cases.Run(case, global_clipnorm=cases.CLIP, gradient_accumulation_steps=2)
    other.optimizer.build(other.variables)
    other.optimizer.load_own_variables(store)
    assert [*bits(other).values()][2:] == [*saved.values()][2:]

    def go_on() -> dict[str, bytes]:
        for g in cases.gradients(4):
            ongoing.apply(g)
        return bits(ongoing)

    expected = go_on()
    assert expected != saved
    for variable, value in zip(ongoing.variables, here, strict=True):
        variable.assign(value)
    ongoing.optimizer.load_own_variables(store)
    assert bits(ongoing) == saved
    assert go_on() == expected


@each_case
@pytest.mark.parametrize("decays", [True, False])
def test_neutral_scalars_freeze(case: str, decays: bool) -> None:
    """The rule alone: no change and the same slots for any finite gradient, in the first update and later."""
    rule, rng = rule_of(case), np.random.default_rng(0)
    for shape in ((3, 2), (4,), ()):
        slots = tuple(initial(slot, shape) for slot in rule.slots_for(shape))
        p, g = (ops.convert_to_tensor(rng.normal(size=shape).astype("float32")) for _ in range(2))
        for t in (1, 2):
            s = prepared(rule, t, decays)
            frozen = s.replace(**{k: ops.full_like(getattr(s, k), x) for k, x in rule.neutral.items() if has(s, k)})
            delta, after = rule.update(g, p, slots, frozen)
            assert np.all(ops.convert_to_numpy(delta) == 0), (shape, t)
            for old, new in zip(slots, after, strict=True):
                assert ops.convert_to_numpy(old).tobytes() == ops.convert_to_numpy(new).tobytes(), (shape, t)
            _, slots = rule.update(g, p, slots, s)


def rule_of(case: str) -> Any:
    return parse({"algorithm": cases.algorithm(case), **cases.CASES[case]}).parts[0].rule


def has(s: Scalars, name: str) -> bool:
    return getattr(s, name, None) is not None


def initial(slot: Any, shape: tuple[int, ...]) -> Any:
    value = slot.initializer if isinstance(slot.initializer, float) else 0.0
    return ops.full(shape if slot.shape is None else slot.shape, value, slot.dtype or "float32")


def prepared(rule: Any, t: int, decays: bool) -> Scalars:
    numbers = {k: ops.convert_to_tensor(x, "float32") for k, x in rule.hyperparameters.items()}
    numbers |= {name: ops.convert_to_tensor([0.5, 0.25], "float32") for name in rule.gathered}
    rate, decay = ops.convert_to_tensor(0.1, "float32"), ops.convert_to_tensor(0.01, "float32")
    s = rule.prepare(Scalars(rate=rate, decay=decay, **numbers), ops.convert_to_tensor(float(t), "float32"))
    s = Scalars(**{k: None if x is None else ops.cast(x, "float32") for k, x in vars(s).items()})
    return s if decays else s.replace(decay=None)


# Options -----------------------------------------------------------------------------------------------------


@each_rule
def test_every_float_can_change_without_a_trace(rule: str) -> None:
    """It is in the packed hyperparameters, itself or as one minus it; except what only sets the state's first value."""
    packed = RULES[rule]().hyperparameters
    floats = {f.name for f in dataclasses.fields(RULES[rule]) if isinstance(getattr(RULES[rule](), f.name), float)}
    hidden = {n for n in floats if n not in packed and f"one_minus_{n}" not in packed}
    assert hidden <= {"initial_accumulator_value", "initial_distance", "momentum", "dampening"}


@each_case
def test_configurations_come_back(case: str) -> None:
    optimizer = ck.Optimizer(cases.algorithm(case), **cases.CASES[case])
    config = json.loads(json.dumps(optimizer.get_config()))
    assert ck.Optimizer.from_config(config).get_config() == config
    named = getattr(ck, RULES[cases.algorithm(case)].__name__)(**cases.CASES[case])
    data = json.loads(json.dumps(keras.optimizers.serialize(named)))
    back = keras.optimizers.deserialize(data)
    assert type(back) is type(named) and back.get_config() == named.get_config()


OTHER_ARGUMENTS = {"Muon", "ScheduleFreeAdamW"}
"""Classes whose arguments are not Keras': see docs/deviations.md."""


@each_rule
def test_classes_and_names(rule: str) -> None:
    """The class has all options of its rule, and Keras' signature where Keras has it."""
    cls = getattr(ck, RULES[rule].__name__)
    config = cls().get_config()
    assert {f.name for f in dataclasses.fields(RULES[rule])} <= set(config)
    stock = getattr(keras.optimizers, cls.__name__, None)
    if stock is not None and cls.__name__ not in OTHER_ARGUMENTS:
        theirs = [p for p in signature(stock) if p[0] != "kwargs"]
        assert signature(cls)[: len(theirs)] == theirs


def signature(cls: type) -> list[tuple[str, Any]]:
    parameters = inspect.signature(cls).parameters.values()
    return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def test_the_catalog() -> None:
    rows = {row.name: row for row in ck.algorithms()}
    assert set(rows) == set(RULES)
    known = {"sgd": 0, "adam": 8, "nadamw": 8, "lamb": 8, "lion": 4, "lars": 4, "adan": 16, "ademamix": 12}
    found = {name: rows[name].state_bytes_per_parameter for name in known}
    assert found == known
    assert rows["adafactor"].state_bytes_per_parameter < 0.01
    assert all(row.use.endswith(".") and row.paper and hasattr(ck, row.class_name) for row in rows.values())


@pytest.mark.parametrize(
    ("rule", "option", "value"),
    [
        ("radam", "beta_2", 0.5),
        ("adagrad", "initial_accumulator_value", -1.0),
        ("rmsprop", "momentum", 1.0),
        ("rmsprop", "epsilon", 0.0),
        ("ftrl", "learning_rate_power", 0.5),
        ("lars", "trust_coefficient", 0.0),
        ("adopt", "clip", "yes"),
        ("adan", "beta_3", 1.0),
        ("ademamix", "horizon", 0),
        ("adafactor", "beta_2_decay", 0.8),
        ("adafactor", "min_dim_size_to_factor", 0),
        ("nadam", "momentum_decay", 0.0),
        ("mars", "gamma", -1.0),
        ("prodigy", "initial_distance", 0.0),
        ("prodigy", "distance_factor", 0.0),
        ("soap", "precondition_frequency", 0),
        ("soap", "max_precondition_dim", 0),
        ("muon", "split", 0),
        ("muon", "newton_schulz_steps", 0),
        ("muon", "adam_pattern", 5),
        ("schedulefreesgd", "beta_1", 0.0),
    ],
)
def test_bad_values_are_refused(rule: str, option: str, value: Any) -> None:
    with pytest.raises(ck.ConfigError, match=f"^{option}: expected"):
        ck.Optimizer(rule, **{option: value})


def test_rectification_keeps_its_digits() -> None:
    """rho_t is near t in the first updates, where the formula as written loses all digits in float32."""
    for beta in (0.99, 0.999, 0.9999):
        one_minus, t = ops.convert_to_tensor(1 - beta, "float32"), np.array([1, 5, 6, 50, 499, 501, 10_000])
        exact = 2 / (1 - beta) - 1 - 2 * t * beta**t / (1 - beta**t)
        found = [effective_samples(one_minus, ops.convert_to_tensor(float(x), "float32")) for x in t]
        np.testing.assert_allclose([float(x) for x in found], exact, rtol=3e-6)


def test_adafactor_factors_the_two_largest_axes() -> None:
    rule = RULES["adafactor"](min_dim_size_to_factor=4)
    assert [slot.shape for slot in rule.slots_for((3, 8, 4))] == [(3, 4), (3, 8)]
    assert [slot.name for slot in rule.slots_for((3, 3, 8))] == ["v"]
    big, rng = keras.Variable(np.zeros((3, 8, 4)), dtype="float32"), np.random.default_rng(0)
    optimizer = ck.Optimizer("adafactor", 1.0, min_dim_size_to_factor=4, jit_compile=False, scale_parameter=False)
    g = rng.normal(size=(3, 8, 4)).astype("float32")
    optimizer.apply([ops.convert_to_tensor(g)], [big])
    factors = [np.outer((x**2).mean(1), (x**2).mean(0)) / (x**2).mean() for x in g]
    u = np.stack([x / np.sqrt(f) for x, f in zip(g, factors, strict=True)])
    np.testing.assert_allclose(big.numpy(), -u / max(1, np.sqrt((u**2).mean())), rtol=2e-5, atol=1e-6)


# One by one --------------------------------------------------------------------------------------------------


def test_muon_is_what_torch_has() -> None:
    """torch orthogonalises in bfloat16, and has outputs first."""
    w = keras.Variable(cases.weights()[0].T, dtype="float32")
    optimizer = ck.Muon(0.01, adjust_rate="original", weight_decay=0.1)
    for g in cases.gradients():
        optimizer.apply([ops.convert_to_tensor(g[0].T, "float32")], [w])
    assert_close([w.numpy().T], [cases.DATA[cases.TORCH]["Muon"]], limit=1e-3)


def test_the_transcription_of_soap_is_what_its_library_has() -> None:
    """That library adds epsilon before bias correction, and lets the new weight decay."""
    grads = [g[0] for g in cases.gradients()]
    found = TRANSCRIPTIONS["soap"](cases.weights()[0], grads, 0.01, 0.01, as_library=True)
    assert_close([found], [cases.DATA[cases.TORCH]["po.SOAP"]], 1e-9)


def test_muon_leaves_embeddings_heads_and_vectors_to_adamw() -> None:
    names = ("token_embedding/embeddings", "block/dense/kernel", "block/dense/bias", "lm_head/kernel", "mixer/kernel")
    variables = [named(name, (4,) if name.endswith("bias") else (4, 4)) for name in names]
    optimizer = ck.Muon()
    optimizer.build(variables)
    assert [len(row) for row in optimizer._state.slots] == [2, 1, 2, 2, 1]
    rows = optimizer.describe(print_fn=lambda text: None)
    assert [row.algorithm for row in rows] == ["AdamW", "Muon", "AdamW", "AdamW", "Muon"]


def named(path: str, shape: tuple[int, ...]) -> keras.Variable:
    *scopes, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(ops.ones(shape), name=name)


def test_singular_values_come_near_one() -> None:
    rng = np.random.default_rng(0)
    for shape in ((20, 20), (7, 30), (30, 7)):
        x = orthogonalized(ops.convert_to_tensor(rng.normal(size=shape).astype("float32")), 5)
        values = np.linalg.svd(ops.convert_to_numpy(x), compute_uv=False)
        assert values.min() > 0.3 and values.max() < 1.3


def test_lazyadam_leaves_rows_alone() -> None:
    w = keras.Variable(np.ones((4, 2)), dtype="float32")
    optimizer = ck.LazyAdam(0.1, weight_decay=0.1)
    g = np.array([[1.0, 2.0], [0, 0], [3.0, 0.0], [0, 0]], "float32")
    optimizer.apply([ops.ones((4, 2))], [w])
    before = w.numpy()
    for _ in range(2):
        optimizer.apply([ops.convert_to_tensor(g)], [w])
    assert np.all(w.numpy()[[1, 3]] == before[[1, 3]]) and np.all(w.numpy()[[0, 2]] < before[[0, 2]])


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_schedule_free_is_what_its_library_has(name: str) -> None:
    """Both points, with a warmup of two updates; and there and back again."""
    w = keras.Variable(cases.weights()[0], dtype="float32")
    warmup = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.005, 0.01])
    optimizer = getattr(ck, f"ScheduleFree{name}")(warmup)
    for g in cases.gradients():
        optimizer.apply([ops.convert_to_tensor(g[0], "float32")], [w])
    entry = f"schedulefree.{name}ScheduleFree warm2"
    for move, key in ((optimizer.evaluation_mode, f"{entry} eval"), (optimizer.training_mode, entry)):
        move()
        move()
        assert_close([w.numpy()], [cases.DATA[cases.TORCH][key]])


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"statistics_every": 1, "cautious": True}])
def test_schedule_free_goes_back_by_itself(jit: bool, options: dict[str, Any]) -> None:
    """An update that finds the average in the model is the one that it would be from the other point."""
    found = []
    for by_hand in (True, False):
        variables = [keras.Variable(w, dtype="float32") for w in cases.weights()]
        optimizer = ck.ScheduleFreeAdamW(0.01, jit_compile=jit, **options)
        for g in [*cases.gradients(), *cases.gradients()]:
            optimizer.apply([ops.convert_to_tensor(x, "float32") for x in g], variables)
            optimizer.evaluation_mode()
            if by_hand:
                optimizer.training_mode()
        optimizer.training_mode()
        found.append([v.numpy() for v in variables])
    assert_close(*found)


def test_schedule_free_waits_in_the_average_while_updates_are_skipped() -> None:
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
    optimizer = ck.ScheduleFreeSGD(0.1)
    for g in (1.0, 2.0):
        optimizer.apply([ops.ones((2,)) * g, ops.ones((1,)) * g], variables)
    there = [v.numpy() for v in variables]
    optimizer.evaluation_mode()
    average = [v.numpy() for v in variables]
    optimizer.apply([ops.ones((2,)), ops.ones((1,)) * np.nan], variables)
    np.testing.assert_array_equal(np.concatenate([v.numpy() for v in variables]), np.concatenate(average))
    with pytest.warns(UserWarning, match="stay as they are"):
        optimizer.apply([ops.zeros((2,)), None], variables)  # moves the first, and takes the second back
    np.testing.assert_allclose(variables[1].numpy(), there[1], rtol=1e-6)
    assert np.abs(variables[0].numpy() - average[0]).max() > 1e-3


def test_schedule_free_in_fit_without_a_callback() -> None:
    """`fit` ends in the average, and the next one goes on from the other point."""
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    losses = {}
    for attached in (True, False):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(ck.ScheduleFreeSGD(0.05), "mse")
        expected = contextlib.nullcontext() if attached else pytest.warns(UserWarning, match="holds the average now")
        for _ in range(2):
            with expected:
                model.fit(x, x.sum(1), 8, shuffle=False, verbose=0, callbacks=[ck.Attach()] if attached else [])
            expected = contextlib.nullcontext()
            losses.setdefault(attached, []).append(model.evaluate(x, x.sum(1), verbose=0))
    assert abs(losses[True][0] - losses[False][0]) < 1e-6
    assert abs(losses[True][1] - losses[False][1]) < 0.01 * losses[True][1]  # one gradient is of another point


def test_schedule_free_in_fit(tmp_path: Path) -> None:
    """Validation, files and the model after `fit` have the average; a second `fit` goes on from the other point."""
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    y = x.sum(1, keepdims=True)

    def model() -> tuple[keras.Model, ck.Optimizer]:
        keras.utils.set_random_seed(0)
        m, optimizer = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), ck.ScheduleFreeSGD(0.05)
        m.compile(optimizer, "mse")
        return m, optimizer

    m, optimizer = model()
    files = keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True)
    common = {"batch_size": 8, "shuffle": False, "verbose": 0}
    history = m.fit(x, y, epochs=2, validation_data=(x, y), callbacks=[ck.Attach(), files], **common).history
    averaged = m.evaluate(x, y, verbose=0)
    assert abs(averaged - history["val_loss"][-1]) < 1e-6 * averaged
    other, _ = model()
    other.load_weights(tmp_path / "2.weights.h5")
    assert abs(other.evaluate(x, y, verbose=0) - averaged) < 1e-6 * averaged
    for each in (m, other):
        each.fit(x, y, epochs=2, callbacks=[ck.Attach()], **common)
    np.testing.assert_allclose(other.layers[0].kernel.numpy(), m.layers[0].kernel.numpy(), rtol=1e-6)
    optimizer.training_mode()
    assert np.abs(other.layers[0].kernel.numpy() - m.layers[0].kernel.numpy()).max() > 1e-4
    whole, _ = model()
    whole.fit(x, y, epochs=4, callbacks=[ck.Attach()], **common)
    np.testing.assert_allclose(whole.layers[0].kernel.numpy(), other.layers[0].kernel.numpy(), rtol=1e-5)


def test_prodigy_finds_its_rate() -> None:
    """A quadratic whose solution is 3 away, from a first guess of 1e-6."""
    w, optimizer = keras.Variable([3.0, -3.0]), ck.Prodigy()
    for _ in range(200):
        optimizer.apply([ops.convert_to_tensor(w)], [w])
    assert np.abs(w.numpy()).max() < 0.5
    assert 0.1 < float(ops.convert_to_numpy(optimizer._state.slots[0][4])) < 10


def test_corrected_decay_falls_with_the_square_of_the_rate() -> None:
    """Of the peak's decay, the share (rate / peak)² (Defazio 2025)."""
    ends = []
    for mode in ("decoupled", "corrected"):
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.125])
        w, optimizer = keras.Variable([1.0]), ck.SGD(schedule, weight_decay=0.5, weight_decay_mode=mode)
        for _ in range(2):
            optimizer.apply([ops.zeros((1,))], [w])
        ends.append(float(w[0]))
    np.testing.assert_allclose(ends, [0.75 * (1 - 0.125 * 0.5), 0.75 * (1 - 0.125 * 0.5 * 0.25)], rtol=1e-6)

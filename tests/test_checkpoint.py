"""Saved and loaded: the run that was stopped goes on bit for bit, and what does not belong is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.schedules import LinearWithWarmup
from tests import resume
from tests.models import regressor, values, variables
from tests.subprocess_runner import run

PROGRAM = Path(resume.__file__)

UPDATES = {
    "adam": 6,  # 7 batches, of which one has an infinite gradient
    "adamw, everything": 2,  # windows of two: the second is skipped, and the last micro-batch is left over
    "sgd, window of 3, average overwrites": 1,  # the first window is skipped, the last micro-batch left over
    "inside LossScaleOptimizer": 3,  # the bad micro-batch does not reach the optimizer inside
}

# Going on in a new process -----------------------------------------------------------------------------


Differing = dict[str, list[str]]


def interrupted(backend: str, cases: list[str], folder: Path) -> Differing:
    """What differs from the run that never stopped, by case, format and batch."""
    assert run(PROGRAM, ["save", folder, *cases], backend=backend) == {case: UPDATES[case] for case in cases}
    return run(PROGRAM, ["resume", folder, *cases], backend=backend)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Differing]:
    """On TensorFlow and on JAX, at the same time."""
    jobs = {backend: (cases, tmp_path_factory.mktemp(backend)) for backend, cases in CASES.items()}
    with ThreadPoolExecutor() as pool:
        running = {backend: pool.submit(interrupted, backend, *job) for backend, job in jobs.items()}
        return {backend: future.result() for backend, future in running.items()}


CASES = {"tensorflow": list(resume.CASES), "jax": resume.THOROUGH}
FORMATS = {
    "unbuilt .weights.h5": resume.THOROUGH,
    "built .weights.h5": resume.CASES,
    ".keras": resume.CASES,
    "tf.train.Checkpoint": resume.CASES,
    "deferred tf.train.Checkpoint": resume.THOROUGH,
}
"""How it is saved -> in which cases. After each batch where the optimizer is built, else in the middle."""


def of_the_wrapper(variable: str) -> bool:
    """Keras' LossScaleOptimizer restores its own scale and counter only once it is built."""
    return variable.endswith("of LossScaleOptimizer") and variable.startswith("loss_scale_optimizer/")


@pytest.mark.parametrize(
    ("backend", "how"), [(b, how) for b in CASES for how in FORMATS if b == "tensorflow" or "tf.train" not in how]
)
def test_a_new_process_goes_on_bit_for_bit(backend: str, how: str, both: dict[str, Differing]) -> None:
    """Weights and the whole state of the optimizer, saved after any of the batches."""
    found = {key: differ for key, differ in both[backend].items() if key.split(" | ")[1] == how}
    cases = [case for case in CASES[backend] if case in FORMATS[how]]
    times = resume.BATCHES if how in ("built .weights.h5", "tf.train.Checkpoint") else 1
    assert len(found) == times * len(cases) > 0
    if how == "unbuilt .weights.h5":
        found = {key: [v for v in differ if not of_the_wrapper(v)] for key, differ in found.items()}
    assert {key: differ for key, differ in found.items() if differ} == {}


@pytest.mark.parametrize("case", resume.WHOLE_FITS)
def test_backup_and_restore(case: str, both: dict[str, Differing]) -> None:
    """Stopped after two epochs of `fit`, in mid-window; a new process goes on to the same end."""
    assert both["tensorflow"][f"{case} | BackupAndRestore | 2 epochs"] == []


# What does not belong together -------------------------------------------------------------------------

Store = dict[str, np.ndarray]


def trained(optimizer: Any, steps: int = 3, seed: int = 0, shapes: Any = ((2, 3), (3,))) -> Any:
    """The optimizer after some updates of two variables."""
    optimizer.jit_compile = False
    ws = variables(*shapes)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        optimizer.apply([ops.array(rng.normal(size=w.shape).astype("float32")) for w in ws], ws)
    return optimizer


def stored(optimizer: Any) -> Store:
    """What the optimizer writes into Keras' stores."""
    store: Store = {}
    optimizer.save_own_variables(store)
    return store


def refused(optimizer: Any, store: Store, *messages: str) -> None:
    """Loading raises an error that says all of `messages`, and writes nothing."""
    before = values(optimizer)
    with pytest.raises(ck.CheckpointError) as raised:
        optimizer.load_own_variables(store)
    for message in messages:
        assert message in str(raised.value)
    for a, b in zip(values(optimizer), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_algorithm_is_refused() -> None:
    store = stored(trained(ck.SGD(momentum=0.9)))
    refused(trained(ck.Adam(), seed=1), store, "saved by algorithm 'sgd', this is 'adam'")


def test_another_algorithm_is_refused_where_one_keeps_no_state() -> None:
    """Gradient descent keeps nothing per variable, but its counter would spoil Adam's bias correction."""
    refused(trained(ck.Adam(), seed=1), stored(trained(ck.SGD())), "saved by algorithm 'sgd', this is 'adam'")
    refused(trained(ck.SGD(), seed=1), stored(trained(ck.Adam())), "saved by algorithm 'adam', this is 'sgd'")
    refused(trained(ck.SGD(momentum=0.9)), stored(trained(ck.SGD())), "momentum of w0: not in the file")


def test_adam_and_adamw_can_read_each_other() -> None:
    """They keep the same state."""
    adam, adamw = trained(ck.Adam(weight_decay=0.1)), trained(ck.AdamW(weight_decay=0.1), seed=1)
    adamw.load_own_variables(stored(adam))
    for a, b in zip(values(adamw), values(adam), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_shapes_are_refused() -> None:
    """The message lists each variable, with both shapes."""
    store = stored(trained(ck.Adam()))
    here = trained(ck.Adam(), shapes=((2, 4), (3,)))
    refused(here, store, "m of w0: shape (2, 3) in the file, (2, 4) here", "v of w0: shape (2, 3) in the file")
    refused(here, store, "To begin with empty state instead, compile with a new optimizer")


def test_other_shapes_are_refused_by_position_too() -> None:
    store = stored(trained(ck.Adam()))
    other = ck.Adam(jit_compile=False)
    other.build([keras.Variable(np.zeros((2, 4)), name="x"), keras.Variable(np.zeros(3), name="y")])
    refused(other, store, "m of x: shape (2, 3) in the file, (2, 4) here")


def test_another_number_of_variables_is_refused() -> None:
    store = stored(trained(ck.Adam()))
    refused(trained(ck.Adam(), shapes=((2, 3), (3,), (1,))), store, "m of w2: not in the file")
    refused(trained(ck.Adam(), shapes=((2, 3),)), store, "m of w1: only in the file")


def test_missing_state_is_refused() -> None:
    store = stored(trained(ck.Adam()))
    refused(trained(ck.Adam(amsgrad=True), seed=1), store, "v_max of w0: not in the file", "v_max of w1: not in")
    refused(trained(ck.Adam(use_ema=True), seed=1), store, "average of w0: not in the file", "average of w1: not in")


def test_state_without_a_place_is_refused() -> None:
    store = stored(trained(ck.Adam(amsgrad=True, use_ema=True)))
    refused(trained(ck.Adam(), seed=1), store, "v_max of w0: only in the file", "average of w1: only in the file")


def test_the_file_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    """Also through `load_weights`, where Keras wraps the error."""
    model = regressor(keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    refused(trained(ck.Adam()), stored(model.optimizer), "10 optimizer variables", "saved by another optimizer")
    model.save_weights(tmp_path / "m.weights.h5")
    ours = regressor(ck.Adam())
    ours.optimizer.build(ours.trainable_variables)
    with pytest.raises(ValueError, match="saved by another optimizer than those of capibara_keras"):
        ours.load_weights(tmp_path / "m.weights.h5")


def test_a_newer_format_is_refused() -> None:
    store = stored(trained(ck.Adam()))
    description = json.loads(store["metadata"].tobytes())
    description["format"] += 1
    store["metadata"] = np.frombuffer(json.dumps(description).encode(), np.uint8)
    refused(trained(ck.Adam(), seed=1), store, "the file has format 2; this version reads up to 1")


def test_a_refusal_is_not_forgotten() -> None:
    """Loaded before `build`, state is checked there; catching the error must not start a run from nothing."""
    optimizer, w = ck.Adam(jit_compile=False), keras.Variable([1.0])
    optimizer.load_own_variables(stored(trained(ck.SGD(momentum=0.9))))
    for attempt in (lambda: optimizer.apply([ops.ones(1)], [w]), lambda: optimizer.build([w])) * 2:
        with pytest.raises(ck.CheckpointError, match="saved by algorithm 'sgd'"):
            attempt()
    assert (w.numpy().item(), int(optimizer.iterations)) == (1.0, 0)
    optimizer.load_own_variables(stored(trained(ck.Adam(), shapes=((1,),), steps=2)))  # what does belong
    optimizer.apply([ops.ones(1)], [w])
    assert int(optimizer.iterations) == 3


# What belongs together in spite of differences ---------------------------------------------------------


def test_a_second_model_in_one_process(tmp_path: Path) -> None:
    """Its layers are dense_2 and dense_3 instead of dense and dense_1: found by position."""
    x, y = resume.data()
    y = np.where(np.isfinite(y), y, 0.0)
    options: dict[str, Any] = dict(global_clipnorm=0.5, gradient_accumulation_steps=2, jit_compile=False)
    model = regressor(ck.Adam(0.1, **options))
    for i in range(3):
        model.train_on_batch(x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4])
    model.save_weights(tmp_path / "m.weights.h5")
    other = regressor(ck.Adam(0.1, **options), seed=1)
    assert other.layers[0].name != model.layers[0].name
    other.load_weights(tmp_path / "m.weights.h5")
    for m in (model, other):
        m.train_on_batch(x[:4], y[:4])
    for a, b in zip(values(model) + values(model.optimizer), values(other) + values(other.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_order_of_variables_does_not_matter() -> None:
    """Of two variables of one shape, each finds its own state by its path."""
    a, b = variables((2,), (2,))
    first, second = ck.SGD(momentum=0.9, jit_compile=False), ck.SGD(momentum=0.9, jit_compile=False)
    first.apply([ops.array([1.0, 2.0]), ops.array([3.0, 4.0])], [a, b])
    second.build([b, a])
    second.load_own_variables(stored(first))
    before = values([a, b])
    second.learning_rate = 1.0
    second.apply([ops.zeros(2), ops.zeros(2)], [b, a])
    after = values([a, b])
    np.testing.assert_allclose(before[0] - after[0], [0.9, 1.8], rtol=1e-5)
    np.testing.assert_allclose(before[1] - after[1], [2.7, 3.6], rtol=1e-5)


def test_variables_of_one_name_are_told_apart_by_order() -> None:
    ws = [keras.Variable([0.0], name="w"), keras.Variable([0.0], name="w")]
    first, second = ck.SGD(momentum=0.9, jit_compile=False), ck.SGD(momentum=0.9, jit_compile=False)
    first.apply([ops.array([1.0]), ops.array([2.0])], ws)
    second.build(ws)
    second.load_own_variables(stored(first))
    for a, b in zip(values(second), values(first), strict=True):
        np.testing.assert_array_equal(a, b)


def accumulated(every: int | None, micro_batches: int) -> ck.SGD:
    """SGD on one weight, gradients 1, 2, 3, …"""
    optimizer = ck.SGD(1.0, gradient_accumulation_steps=every, jit_compile=False)
    w = keras.Variable([0.0], name="w")
    for i in range(micro_batches):
        optimizer.apply([ops.array([i + 1.0])], [w])
    return optimizer


def after_loading(every: int | None, store: Store, gradients: list[float]) -> tuple[list[float], ck.SGD]:
    """The weight after each of some gradients, with the state of `store`."""
    optimizer, w = ck.SGD(1.0, gradient_accumulation_steps=every, jit_compile=False), keras.Variable([0.0], name="w")
    optimizer.build([w])
    optimizer.load_own_variables(store)
    seen = []
    for g in gradients:
        optimizer.apply([ops.array([g])], [w])
        seen.append(w.numpy().item())
    return seen, optimizer


@pytest.mark.parametrize(
    ("every", "gradients", "expected"),
    [
        (4, [6.0, 6.0], [0.0, -(1 + 2 + 6 + 6) / 4]),
        (3, [6.0, 6.0], [-(1 + 2 + 6) / 3] * 2),  # the same window, and then a new one
        (2, [6.0], [-(1 + 2 + 6) / 3]),  # it was full already: the true number divides
    ],
)
def test_a_window_goes_on_with_another_length(every: int, gradients: list[float], expected: list[float]) -> None:
    seen, optimizer = after_loading(every, stored(accumulated(4, 2)), gradients)
    assert seen == pytest.approx(expected)
    assert int(optimizer.iterations) == 1


def test_accumulated_gradients_need_accumulation() -> None:
    optimizer = accumulated(None, 1)
    refused(optimizer, stored(accumulated(4, 2)), "2 accumulated micro-batches", "no gradient_accumulation_steps")


def test_an_empty_window_fits_everywhere() -> None:
    """Between two windows, accumulation can be switched off, or on."""
    off, optimizer = after_loading(None, stored(accumulated(2, 4)), [6.0])
    assert (off, int(optimizer.iterations)) == ([-6.0], 3)
    on, optimizer = after_loading(2, stored(accumulated(None, 4)), [6.0, 8.0])
    assert (on, int(optimizer.iterations)) == ([0.0, -7.0], 5)


# Which values win --------------------------------------------------------------------------------------


def loaded(make: Callable[[], ck.Optimizer], other: Callable[[], ck.Optimizer], change: Any) -> ck.Optimizer:
    """An optimizer with the state of another, that was changed after two updates."""
    first = trained(other(), steps=2)
    change(first)
    optimizer = trained(make(), steps=1, seed=1)
    optimizer.load_own_variables(stored(first))
    return optimizer


def test_the_constructors_hyperparameters_win() -> None:
    """A checkpoint has the state, not the options: those are the new run's."""
    optimizer = loaded(
        lambda: ck.Adam(0.1, beta_1=0.5, epsilon=1e-3, weight_decay=0.25, clipnorm=3.0),
        lambda: ck.Adam(0.1, beta_1=0.9, epsilon=1e-7, weight_decay=0.75, clipnorm=1.0),
        lambda first: first.reconfigure({"beta_2": 0.5}),
    )
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.5, 0.999, 1e-3)
    w = keras.Variable(np.full((2, 3), 1.0, "float32"), name="w0")
    fresh = ck.Adam(0.1, beta_1=0.5, epsilon=1e-3, weight_decay=0.25, clipnorm=3.0, jit_compile=False)
    fresh.build([w, keras.Variable(np.zeros(3), name="w1")])
    fresh.load_own_variables(stored(optimizer))
    slots = dict(zip([v.name for v in fresh.variables], values(fresh), strict=True))
    m, v, g = slots["w0_m"], slots["w0_v"], np.full((2, 3), 4.0)
    fresh.apply([ops.array(g, "float32"), ops.zeros(3)])
    g = g * 3.0 / np.linalg.norm(g)
    m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g * g
    step = m / (1 - 0.5**3) / (np.sqrt(v / (1 - 0.999**3)) + 1e-3) + 0.25
    np.testing.assert_allclose(w.numpy(), 1.0 - 0.1 * step, rtol=1e-5)


def test_the_rate_is_restored() -> None:
    """As with Keras: the number, which ReduceLROnPlateau may have lowered."""
    optimizer = loaded(lambda: ck.Adam(0.5), lambda: ck.Adam(0.1), lambda o: setattr(o, "learning_rate", 0.0625))
    assert optimizer.get_learning_rate() == 0.0625


def test_the_rate_on_top_of_a_schedule_is_restored() -> None:
    """The schedule is the new run's; how much of it is used comes from the file, and so does its step."""
    optimizer = loaded(
        lambda: ck.SGD(LinearWithWarmup(4.0, total_steps=8)),
        lambda: ck.SGD(LinearWithWarmup(1.0, total_steps=10)),
        lambda first: setattr(first, "learning_rate", 0.2),  # a quarter of 0.8
    )
    assert optimizer.get_learning_rate() == pytest.approx(0.25 * 3.0)


@pytest.mark.parametrize("built", [False, True])
def test_saved_before_the_first_update(built: bool) -> None:
    """Counter and rate are all there is."""
    first = ck.Adam(0.5)
    first.learning_rate = 0.25
    optimizer = trained(ck.Adam(0.1), steps=1) if built else ck.Adam(0.1)
    optimizer.load_own_variables(stored(first))
    optimizer.build(variables((2, 3), (3,)))
    assert optimizer.get_learning_rate() == 0.25
    assert int(optimizer.iterations) == 0


def test_an_empty_file_warns() -> None:
    with pytest.warns(UserWarning, match="holds no optimizer state; starting afresh"):
        ck.Adam().load_own_variables({})


def test_what_waits_is_saved_again() -> None:
    """Loaded into a model that is only evaluated, and saved again: the training's state is not lost."""
    store, passed_on = stored(trained(ck.Adam())), ck.Adam()
    passed_on.load_own_variables(store)
    again = stored(passed_on)
    assert again.keys() == store.keys()
    assert all(
        np.asarray(again[key]).tobytes() == np.asarray(store[key]).tobytes() for key in store if key != "metadata"
    )
    assert json.loads(again["metadata"].tobytes()) == json.loads(store["metadata"].tobytes())


def test_a_list_of_another_length_is_refused() -> None:
    """Keras would take the first of each."""
    here, weights = trained(ck.Adam(), seed=1), values(trained(ck.Adam(use_ema=True)))
    with pytest.raises(ck.CheckpointError, match=r"set_weights: 13 values for 11 variables"):
        here.set_weights(weights)
    here.set_weights(values(trained(ck.Adam())))
    assert [a.tobytes() for a in values(here)] == [a.tobytes() for a in values(trained(ck.Adam()))]


class Counting(ck.SGD):
    """A subclass with a variable of its own, made after `build` as Keras' optimizers do."""

    def build(self, variables: Any) -> None:
        super().build(variables)
        if not hasattr(self, "calls"):
            self.calls = self.add_variable((), "zeros", name="calls")

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads, trainable_variables)
        self.calls.assign_add(1)


@pytest.mark.parametrize("built", [True, False])
def test_variables_of_a_subclass(built: bool) -> None:
    first, again, (w,) = (
        Counting(momentum=0.9, jit_compile=False),
        Counting(momentum=0.9, jit_compile=False),
        [keras.Variable([1.0])],
    )
    first.apply([ops.ones(1)], [w])
    store: dict[str, Any] = {}
    first.save_own_variables(store)
    if built:
        again.build([w])
    again.load_own_variables(store)
    again.build([w])
    assert [x.tobytes() for x in values(again)] == [x.tobytes() for x in values(first)]
    assert int(again.calls) == 1

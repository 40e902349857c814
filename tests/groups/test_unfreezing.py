"""Layers that are unfrozen, and frozen again, while training goes on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import capibara_keras as ck
from tests.groups.common import named
from tests.models import values
from tests.subprocess_runner import run
from tests.thinning import thinned

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


def test_the_first_callback_comes_with_the_unfreezing() -> None:
    """`fit` traces anew by itself then: nothing to warn of."""
    optimizer = ck.Adam(0.05, jit_compile=False)
    model = tuned(optimizer)
    fit(model, 1, attached=False)
    freeze(model, optimizer, False)
    fit(model, 1, attached=True)
    assert len(optimizer._trainable_variables) == 4


def test_a_layer_that_comes_in_without_compiling_again() -> None:
    """A function that is traced a second time can make no variables: the error says what to do, and doing it helps."""
    optimizer = ck.Adam(0.05, jit_compile=False)
    model = tuned(optimizer, frozen=False)
    fit(model, 1, attached=False)
    model.add(layers.Dense(2, name="c"))
    with pytest.raises(
        ck.ConfigError, match=r"variables \['m/c/kernel', 'm/c/bias'\] are new.*Compile the model again"
    ):
        model.fit(X[:4], Y2[:4], verbose=0)  # of another shape, so that it is traced
    model.compile(optimizer, "mse")
    fit(model, 1, attached=False)
    assert int(optimizer.iterations) == 2


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


@pytest.mark.parametrize("again", thinned([True, False], 2))
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


def test_saving_after_freezing_without_a_callback(tmp_path: Path) -> None:
    """The optimizer is still built on all, and the model that is loaded trains fewer: it goes on with those."""
    model = tuned(ck.Adam(0.05, jit_compile=False), frozen=False)
    fit(model, 2, attached=False)
    freeze(model, model.optimizer, True)
    fit(model, 1, attached=False)
    model.save(tmp_path / "m.keras")
    other = keras.saving.load_model(tmp_path / "m.keras")
    for each in (model, other):
        fit(each, 2, attached=False)
    assert [w.tobytes() for w in values(other)] == [w.tobytes() for w in values(model)]
    assert int(other.optimizer.iterations) == 5


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
from tests.groups import test_unfreezing as t

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
    """With a callback as on TensorFlow. Without one it is an error: Keras' step takes a fixed list of variables."""
    found = run(ON_JAX, backend="jax")
    assert found["same"]
    assert found["step"] < 1e-4
    assert found["updates"] == 6
    assert "the optimizer is built on 2. If layers were frozen or unfrozen, attach a callback" in found["alone"]

"""Weights and state in few bits: how many, how exact, and that nothing of it is random from run to run."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.config import parse
from capibara_keras.rules import RULES, UpdateRule
from capibara_keras.rules.bits import noise, rounded, stochastically_rounded
from capibara_keras.rules.blockwise import BLOCK, decoded, encoded

SHAPE = (64, 80)
"""5120 entries: above the size from which state is kept in 8 bits."""

each_precision = pytest.mark.parametrize("precision", ["bfloat16", "8bit"])
without_jit = pytest.mark.parametrize("jit_compile", [True, False])


def gradient(t: int, shape: tuple[int, ...] = SHAPE) -> Any:
    return ops.convert_to_tensor(np.random.default_rng(t).normal(size=shape).astype("float32"))


def array(x: Any) -> np.ndarray:
    return np.array(ops.convert_to_numpy(x))


# Weights -----------------------------------------------------------------------------------------------------


@without_jit
@pytest.mark.parametrize(("kahan", "end"), [(True, 0.9), (False, 1.0)])
def test_a_bfloat16_weight_goes_where_it_should(kahan: bool, end: float, jit_compile: bool) -> None:
    """100 steps of 0.001 from 1.0; the last place of bfloat16 at 0.9 is 2^-8."""
    w = keras.Variable([1.0], dtype="bfloat16")
    optimizer = ck.SGD(0.001, kahan_summation=kahan, jit_compile=jit_compile)
    for _ in range(100):
        optimizer.apply([ops.ones((1,), "bfloat16")], [w])
    assert abs(float(ops.cast(w, "float32")[0]) - end) <= (2.0**-8 if kahan else 0.0)


def test_kahan_follows_float32() -> None:
    """With the rest of rounding added back, it is the float32 run to the last place of the rest."""
    start = array(ops.cast(ops.cast(gradient(0), "bfloat16"), "float32"))
    low, full = keras.Variable(start, dtype="bfloat16"), keras.Variable(start, dtype="float32")
    with_rest = ck.AdamW(1e-4, kahan_summation=True)
    plain = ck.AdamW(1e-4)
    for t in range(1, 21):
        g = ops.cast(ops.cast(gradient(t), "bfloat16"), "float32")
        with_rest.apply([ops.cast(g, "bfloat16")], [low])
        plain.apply([g], [full])
    rest = next(v for v in with_rest.variables if v.name.endswith("compensation"))
    found = array(ops.cast(low, "float32")) + array(ops.cast(rest, "float32"))
    assert np.abs(array(full) - start).max() > 5e-4
    np.testing.assert_allclose(found, array(full), rtol=0, atol=20 * 2.0**-17 * np.abs(start).max())


def test_kahan_leaves_other_types_alone() -> None:
    optimizer = ck.SGD(kahan_summation=True)
    optimizer.build([keras.Variable([1.0], dtype="float32"), keras.Variable([1.0], dtype="bfloat16")])
    assert [len(row) for row in optimizer._state.slots] == [0, 1]


# Codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("shape", [(3 * BLOCK,), (7, 300), (BLOCK + 1,)])
def test_codes(shape: tuple[int, ...], signed: bool) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) * 10.0 ** rng.uniform(-4, 0, shape)).astype("float32")
    x = x if signed else x**2
    codes, scales = encoded(ops.convert_to_tensor(x), signed)
    back = array(decoded(codes, scales, signed))
    levels, flat = 127 if signed else 255, np.pad(x.ravel(), (0, -x.size % BLOCK)).reshape(-1, BLOCK)
    np.testing.assert_array_equal(array(scales), np.abs(flat).max(1))
    roots = np.sign(flat) * (np.abs(flat) / np.abs(flat).max(1, keepdims=True)) ** 0.25
    k = np.round(levels * roots)
    k = k if signed else np.where(flat > 0, np.maximum(k, 1), 0)
    wanted = np.sign(k) * (np.abs(k) / levels) ** 4 * np.abs(flat).max(1, keepdims=True)
    np.testing.assert_allclose(back.ravel(), wanted.ravel()[: x.size], rtol=1e-5)
    again = encoded(ops.convert_to_tensor(back), signed)
    np.testing.assert_array_equal(array(again[0]), array(codes))
    if not signed:
        assert np.all((back > 0) == (x > 0))


@pytest.mark.parametrize("fill", [0.0, 3.0])
def test_codes_of_equal_entries(fill: float) -> None:
    for signed in (True, False):
        codes, scales = encoded(ops.full((300,), fill), signed)
        assert array(decoded(codes, scales, signed)).tolist() == [fill] * 300


# Rounding ----------------------------------------------------------------------------------------------------


def test_rounding_to_nearest() -> None:
    x = np.concatenate([array(gradient(0)).ravel(), [0.0, -0.0, 1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8]]).astype("float32")
    np.testing.assert_array_equal(
        array(rounded(ops.convert_to_tensor(x))), array(ops.cast(ops.cast(x, "bfloat16"), "float32"))
    )


def test_stochastic_rounding_is_right_on_average() -> None:
    x, n = 1 + 2.0**-7 / 8, 1 << 14
    found = array(stochastically_rounded(ops.full((n,), x, "float32"), noise((n,), ops.convert_to_tensor(3.0), 1)))
    assert set(found.tolist()) == {1.0, 1 + 2.0**-7}
    up = np.mean(found > 1)
    assert abs(up - 1 / 8) < 4 * np.sqrt(1 / 8 * 7 / 8 / n)
    exact = ops.convert_to_tensor(np.array([1.0, -0.0, 1.5, -3.0] * 100, "float32"))
    same = array(stochastically_rounded(exact, noise((400,), ops.convert_to_tensor(3.0), 1)))
    assert same.tobytes() == array(exact).tobytes()


def test_noise_differs_by_entry_time_and_stream() -> None:
    drawn = [array(noise((4096,), ops.convert_to_tensor(t), k)) for t, k in ((1.0, 0), (2.0, 0), (1.0, 1))]
    for bits in drawn:
        share = np.unpackbits(bits.view(np.uint8)).mean()
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(bits.size * 32)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        share = np.unpackbits((drawn[a] ^ drawn[b]).view(np.uint8)).mean()
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(4096 * 32)


# State -------------------------------------------------------------------------------------------------------


@each_precision
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_bytes(name: str, precision: str) -> None:
    sizes = []
    for chosen in ("float32", precision):
        optimizer = ck.Optimizer(name, state_precision=chosen)
        optimizer.build([keras.Variable(ops.zeros(SHAPE))])
        sizes.append(optimizer.describe(print_fn=lambda text: None)[0].state_bytes)
    assert sizes[1] <= {"bfloat16": 0.5, "8bit": 0.27}[precision] * sizes[0]


class Run:
    """Updates of a matrix with state in few bits."""

    def __init__(self, name: str, precision: str, **options: Any) -> None:
        self.w = keras.Variable(gradient(0))
        self.optimizer = ck.Optimizer(name, learning_rate=1e-2, state_precision=precision, **options)

    def apply(self, *times: int, bad: bool = False) -> None:
        for t in times:
            g = array(gradient(t)) + 0.2
            if bad:
                g[3, 5] = np.nan
            self.optimizer.apply([ops.convert_to_tensor(g)], [self.w])

    def bits(self) -> list[bytes]:
        reports = ("counters", "statistics", "variable_norms")
        return [array(v).tobytes() for v in (self.w, *self.optimizer.variables) if v.name not in reports]


@each_precision
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_near_float32(name: str, precision: str) -> None:
    """Of the way that float32 goes in 30 updates, few per cent are missed: single signs of Lion differ."""
    runs = [Run(name, chosen) for chosen in ("float32", precision)]
    for run in runs:
        run.apply(*range(1, 31))
    way, off = (np.sqrt(np.mean((array(runs[0].w) - x) ** 2)) for x in (array(gradient(0)), array(runs[1].w)))
    assert off < {"adamw": 0.03, "lion": 0.12}[name] * way


@each_precision
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_a_bad_update_changes_nothing_and_a_resumed_run_is_the_same(name: str, precision: str) -> None:
    run, store = Run(name, precision), {}
    run.apply(1, 2, 3)
    before = run.bits()
    run.apply(4, bad=True)
    assert run.bits() == before
    run.optimizer.save_own_variables(store)
    other = Run(name, precision)
    other.w.assign(run.w)
    other.optimizer.build([other.w])
    other.optimizer.load_own_variables(store)
    for each in (run, other):
        each.apply(5, 6)
    assert other.bits() == run.bits() != before


@pytest.mark.parametrize("rule", RULES)
def test_bfloat16_state_for_all(rule: str) -> None:
    """Also where no gradient comes in some directions of a matrix: what rounding puts there must not grow."""
    rng, ends = np.random.default_rng(0), []
    start, side = rng.normal(size=(12, 10)).astype("float32"), rng.normal(size=10)
    grads = [np.outer(rng.normal(size=12), side).astype("float32") for _ in range(12)]
    for precision in ("float32", "bfloat16"):
        w = keras.Variable(start)
        optimizer = ck.Optimizer(rule, state_precision=precision, jit_compile=False)
        for g in grads:
            optimizer.apply([ops.convert_to_tensor(g)], [w])
        ends.append(array(w))
    way, off = (np.sqrt(np.mean((ends[0] - x) ** 2)) for x in (start, ends[1]))
    limit = 1.5 if rule == "muon" else 0.05  # Muon makes all directions equally long, those of rounding too
    assert off < limit * way


def test_8_bit_state_is_refused_where_it_was_not_made_for() -> None:
    with pytest.raises(ck.ConfigError, match=r"^state_precision: '8bit' is for adam"):
        ck.Optimizer("adan", state_precision="8bit")
    with pytest.raises(ck.ConfigError, match="state_precision"):
        ck.Optimizer("adam", state_precision="int8")


def test_the_state_is_nearest_to_the_rule() -> None:
    """Slow weights and the rest of rounding are no moments: they keep their precision."""
    options = {"algorithm": "lion", "state_precision": "8bit", "lookahead_steps": 5, "kahan_summation": True}
    rule: UpdateRule = parse(options).parts[0].rule
    slots = {slot.name: slot.dtype for slot in rule.slots_for(SHAPE, "bfloat16")}
    assert slots == {"m": "uint8", "m_scale": "float32", "slow_weights": None, "compensation": "bfloat16"}

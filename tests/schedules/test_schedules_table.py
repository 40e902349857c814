"""Every shape of the table: against float64 NumPy, at its ends, compiled, serialised, in an optimizer."""

import functools
import json
import math

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capibara_keras.schedules import (
    SCHEDULES,
    WSD,
    ConstantWithWarmup,
    CosineWithWarmup,
    Cyclic,
    Exponential,
    InverseSqrt,
    LinearWithWarmup,
    OneCycle,
    Piecewise,
    Polynomial,
)

LAST, SIZE = 2**31 - 1, 48
BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)


# The slow reference: one step at a time, in Python's floats and integers.


def reference(schedule, t):
    c, P, W = schedule, schedule.peak_learning_rate, schedule.warmup_steps
    m, T = getattr(c, "min_learning_rate", 0.0), getattr(c, "total_steps", None)
    if t < W:
        x = t / W
        if isinstance(c, OneCycle):
            x = 0.5 - 0.5 * math.cos(math.pi * x)
        return c.warmup_init_lr + (P - c.warmup_init_lr) * x
    if T is not None and t >= T:
        return m
    return AFTER_WARMUP[type(c)](c, P, W, m, T, t)


def half_cosine(s):
    return 0.5 + 0.5 * math.cos(math.pi * s)


def cosine_reference(c, P, W, m, T, t):
    if not c.cosine_restarts:
        i, ends = 0, [round(i * (T - W) / c.cosine_cycles) for i in range(math.ceil(c.cosine_cycles) + 1)]
        while t - W >= ends[i + 1]:
            i += 1
        return m + (P - m) * half_cosine((t - W - ends[i]) / (ends[i + 1] - ends[i]))
    i, length = 0, c.restart_period
    if c.restart_multiplier == 1:
        i, u = divmod(t - W, length)
    else:
        u = t - W
        while u >= length:
            u, i, length = u - length, i + 1, round(length * c.restart_multiplier)
    peak, rise = max(P * c.restart_decay**i, m), c.restart_warmup_steps if i else 0
    if u < rise:
        return m + (peak - m) * u / rise
    return m + (peak - m) * half_cosine((u - rise) / (length - rise))


def wsd_reference(c, P, W, m, T, t):
    s = max(0.0, (t - (T - c.decay_steps)) / c.decay_steps)
    shape = {"linear": 1 - s, "cosine": half_cosine(s), "1-sqrt": 1 - math.sqrt(s)}[c.decay_shape]
    return m + (P - m) * shape


def exponential_reference(c, P, W, m, T, t):
    if T is None:
        return max(P * math.exp((t - W) * math.log(c.decay_rate) / c.decay_steps), m)
    return P * (m / P) ** ((t - W) / (T - W))


def piecewise_reference(c, P, W, m, T, t):
    passed = sum(t >= boundary for boundary in c.boundaries)
    return P * (1.0, *c.factors)[passed]


def cyclic_reference(c, P, W, m, T, t):
    k, v = divmod(t - W, c.cycle_steps)
    down = c.cycle_steps // 2
    if v < down:
        return m + (P - m) * c.cycle_decay**k * (down - v) / down
    return m + (P - m) * c.cycle_decay ** (k + 1) * (v - down) / (c.cycle_steps - down)


AFTER_WARMUP = {
    CosineWithWarmup: cosine_reference,
    LinearWithWarmup: lambda c, P, W, m, T, t: m + (P - m) * (T - t) / (T - W),
    Polynomial: lambda c, P, W, m, T, t: m + (P - m) * ((T - t) / (T - W)) ** c.power,
    ConstantWithWarmup: lambda c, P, W, m, T, t: P,
    InverseSqrt: lambda c, P, W, m, T, t: P / math.sqrt(1 + (t - W) / (c.timescale or W or 10_000)),
    WSD: wsd_reference,
    Exponential: exponential_reference,
    OneCycle: lambda c, P, W, m, T, t: m + (P - m) * half_cosine((t - W) / (T - W)),
    Piecewise: piecewise_reference,
    Cyclic: cyclic_reference,
}

CASES = [
    CosineWithWarmup(6e-4, 100_000, 2_000, 6e-5),
    CosineWithWarmup(6e-4, LAST, 16_777_217, 6e-5, 1e-5),
    CosineWithWarmup(1e-3, 100_003, 0, 1e-4, cosine_cycles=7),
    CosineWithWarmup(1e-3, LAST, 5, cosine_cycles=2.5),
    CosineWithWarmup(1e-3, 3_000, 100, 1e-4, cosine_cycles=0.7),
    CosineWithWarmup(1e-4, 500_000, 10_000, 1e-6, cosine_restarts=True, restart_period=100_000, restart_decay=0.8),
    CosineWithWarmup(
        1.0,
        LAST,
        7,
        0.1,
        cosine_restarts=True,
        restart_period=100_003,
        restart_decay=0.9999,
        restart_warmup_steps=9,
    ),
    CosineWithWarmup(
        1e-3,
        LAST,
        0,
        cosine_restarts=True,
        restart_period=1000,
        restart_multiplier=2.0,
        restart_warmup_steps=99,
    ),
    LinearWithWarmup(3e-4, 200_000, 5_000, 1e-5),
    LinearWithWarmup(3e-4, LAST, LAST // 2),
    Polynomial(1e-4, 500_000, 1_000, 1e-6, power=0.5),
    Polynomial(1e-4, 1_234_567_891, 1_000, power=24.0),
    ConstantWithWarmup(1e-3, 16_777_219, 1e-4),
    InverseSqrt(6e-4, 2_000),
    InverseSqrt(6e-4),
    InverseSqrt(6e-4, 10, timescale=20_000_001),
    WSD(6e-4, 100_000, 20_000, 2_000, 6e-5, 6e-5, "1-sqrt"),
    WSD(6e-4, LAST, 1_000_000_000, 2_000),
    WSD(6e-4, 40_000, 38_000, 2_000, 1e-5, decay_shape="cosine"),
    Exponential(1e-3, 100_000, 1_000, 1e-6),
    Exponential(1e-3, warmup_steps=10, min_learning_rate=1e-5, decay_rate=0.9, decay_steps=3_000_000),
    OneCycle(0.1, 100_000),
    OneCycle(0.1, LAST, 3, 0.0, 0.05),
    Piecewise(0.1, (32_000, 48_000, 2_000_000_001), (0.1, 2.0, 0.0), 400),
    Piecewise(0.1, (), ()),
    Cyclic(6e-3, 4_000, 2_000, 1e-3, 1e-3),
    Cyclic(6e-3, 1_000_007, 0, 1e-3, cycle_decay=0.99),
]
NAMES = {cls: name for name, cls in SCHEDULES.items()}
IDS = [f"{NAMES[type(schedule)]}-{i}" for i, schedule in enumerate(CASES)]

every_case = pytest.mark.parametrize("schedule", CASES, ids=IDS)


def landmarks(schedule):
    T = getattr(schedule, "total_steps", None) or 100_000
    W = schedule.warmup_steps
    edges = [W, T, W + (T - W) // 64, W + (T - W) // 2, *getattr(schedule, "boundaries", ())]
    if period := getattr(schedule, "restart_period", None) or getattr(schedule, "cycle_steps", None):
        edges += [W + k * period for k in (1, 2, 3, 1000, (LAST - W) // period)]
    near = [edge + d for edge in edges for d in (-1, 0, 1)]
    return [t for t in (0, 1, 2**24, 2**24 + 1, LAST - 1, LAST, *near) if 0 <= t <= LAST]


@functools.cache
def compiled(schedule):
    """The schedule under XLA. Callers give it `SIZE` steps at a time, so that it is compiled once."""
    if BACKEND == "jax":
        import jax

        return jax.jit(schedule)
    import tensorflow as tf

    return tf.function(schedule, jit_compile=True)


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_every_row_has_a_case():
    assert {type(schedule) for schedule in CASES} == set(SCHEDULES.values())


@every_case
def test_float64_reference(schedule):
    """Up to the last step of int32, to a millionth of the peak, eager and compiled."""
    T, known = getattr(schedule, "total_steps", None) or 100_000, landmarks(schedule)
    calls = [compiled(schedule)] if BACKEND == "jax" else [schedule, compiled(schedule)]  # JAX compiles each shape
    step = st.one_of(st.integers(0, LAST), st.integers(0, min(LAST, T + T // 10)), st.sampled_from(known))

    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(step, min_size=SIZE, max_size=SIZE))
    def agrees(steps):
        wanted = [reference(schedule, t) for t in steps]
        for call in calls:
            rates = numbers(call(np.array(steps, "int32")))
            np.testing.assert_allclose(rates, wanted, rtol=0, atol=1e-6 * schedule.peak)

    agrees()
    for t in known:
        assert float(schedule(t)) == pytest.approx(reference(schedule, t), rel=0, abs=1e-6 * schedule.peak)


@every_case
def test_ends_are_exact(schedule):
    W, P, m = schedule.warmup_steps, schedule.peak_learning_rate, getattr(schedule, "min_learning_rate", None)
    T = getattr(schedule, "total_steps", None)
    exact = {0: schedule.warmup_init_lr if W else P, W: P}
    if T is not None:
        exact |= {T: m, min(T + 1, LAST): m, LAST: m}
    steps, rates = np.array(list(exact), "int32"), np.array(list(exact.values()), "float32")
    assert [float(schedule(t)) for t in steps] == rates.tolist()
    assert numbers(compiled(schedule)(np.resize(steps, SIZE))).tolist() == np.resize(rates, SIZE).tolist()


@every_case
def test_peak_is_the_largest_rate(schedule):
    rates = numbers(schedule([*landmarks(schedule), *RNG.integers(0, LAST, 1000)]))
    assert isinstance(schedule.peak, float)
    assert rates.max() == np.float32(schedule.peak)
    assert rates.min() >= 0


@every_case
def test_every_kind_of_step(schedule):
    steps = [0, 1, 3_000, 20_000_003, LAST]
    wanted = [float(schedule(t)) for t in steps]
    integers = [np.array(steps), np.array(steps, "int32"), np.array(steps, "uint32"), steps]
    tensors = [keras.ops.convert_to_tensor(np.array(steps, dtype)) for dtype in ("int32", "int64", "uint32")]
    for t in integers + tensors:
        rates = schedule(t)
        assert keras.backend.standardize_dtype(rates.dtype) == "float32"
        assert numbers(rates).tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    table = keras.ops.reshape(tensors[0][:4], (2, 2))
    assert numbers(schedule(table)).shape == (2, 2)
    assert float(schedule(keras.Variable(3_000, dtype="int32"))) == wanted[2]
    assert float(schedule(np.int64(3_000))) == float(schedule(3_000.0)) == wanted[2]
    assert schedule(3_000).shape == ()


@every_case
def test_survives_serialisation(schedule):
    again = type(schedule).from_config(schedule.get_config())
    assert again == schedule and again.get_config() == schedule.get_config()
    data = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    assert keras.optimizers.schedules.deserialize(data) == schedule
    assert hash(again) == hash(schedule) and repr(again) == repr(schedule)


@every_case
def test_dtype_follows_floatx(schedule):
    before = keras.config.floatx()
    try:
        for floatx, dtype in {"bfloat16": "float32", "float16": "float32", "float64": "float64"}.items():
            if BACKEND == "jax" and floatx == "float64":
                continue  # x64 is off
            keras.config.set_floatx(floatx)
            rates = schedule([0, 1, 12_345, 1_000_000_007])
            assert keras.backend.standardize_dtype(rates.dtype) == dtype
            if floatx == "float64":
                wanted = [reference(schedule, t) for t in (0, 1, 12_345, 1_000_000_007)]
                np.testing.assert_allclose(numbers(rates), wanted, rtol=1e-9, atol=1e-15)
    finally:
        keras.config.set_floatx(before)


@pytest.mark.parametrize("name", SCHEDULES)
def test_in_a_stock_optimizer(name):
    schedule = next(schedule for schedule in CASES if type(schedule) is SCHEDULES[name])
    optimizer = keras.optimizers.Adam(schedule)
    weight = keras.Variable(np.ones(3, "float32"))
    optimizer.build([weight])
    if BACKEND != "jax":
        optimizer.apply([keras.ops.ones(3)])
    assert float(optimizer.learning_rate) == float(schedule(int(optimizer.iterations)))
    again = keras.optimizers.Adam.from_config(optimizer.get_config())
    assert again._learning_rate == schedule


@pytest.mark.parametrize("wide", [2**31, 2**40])
def test_steps_beyond_int32_count_as_the_last(wide):
    schedule = InverseSqrt(1.0, 100)
    assert float(schedule(wide)) == float(schedule(np.int64(wide))) == float(schedule(LAST)) > 0
    if BACKEND != "jax":
        assert float(schedule(keras.ops.convert_to_tensor(np.int64(wide)))) == float(schedule(LAST))

"""What a schedule is beside its rates: its errors, its preview, its composition."""

import dataclasses
import json
import pickle

import keras
import numpy as np
import pytest

from capibara_keras.errors import ConfigError
from capibara_keras.schedules import (
    SCHEDULES,
    WSD,
    ConstantWithWarmup,
    CosineWithWarmup,
    Cyclic,
    Exponential,
    InverseSqrt,
    Join,
    LinearWithWarmup,
    OneCycle,
    Piecewise,
    Polynomial,
    join,
)

stock = keras.optimizers.schedules


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CosineWithWarmup(1e-3, 100, 100),
            r"total_steps: expected more than warmup_steps=100, received 100",
        ),
        (lambda: OneCycle(1e-3, 100, 200), r"total_steps: expected more than warmup_steps=200, received 100"),
        (lambda: LinearWithWarmup(1e-3, 2**31), r"total_steps: .*received 2147483648"),
        (lambda: LinearWithWarmup(1e-3, 10.5), r"total_steps: expected a whole number.*received 10.5"),
        (
            lambda: LinearWithWarmup("1e-3", 10),
            r"peak_learning_rate: expected a number >= 0, received '1e-3'",
        ),
        (lambda: LinearWithWarmup(None, 10), r"peak_learning_rate: expected a number >= 0, received None"),
        (lambda: LinearWithWarmup(float("nan"), 10), r"peak_learning_rate: .*received nan"),
        (lambda: ConstantWithWarmup(1e-3, -1), r"warmup_steps: expected a whole number.*received -1"),
        (lambda: ConstantWithWarmup(1e-3, True), r"warmup_steps: .*received True"),
        (
            lambda: ConstantWithWarmup(1e-3, 9, 1e-2),
            r"warmup_init_lr: .*peak_learning_rate=0.001, received 0.01",
        ),
        (
            lambda: LinearWithWarmup(1e-3, 9, 0, 1e-2),
            r"min_learning_rate: .*peak_learning_rate=0.001, rec.* 0.01",
        ),
        (lambda: Polynomial(1e-3, 9, power=0), r"power: expected a number > 0, received 0"),
        (lambda: InverseSqrt(1e-3, timescale=0), r"timescale: .*received 0"),
        (
            lambda: WSD(1e-3, 100, 60, 50),
            r"decay_steps: .*total_steps - warmup_steps = 100 - 50, received 60",
        ),
        (lambda: WSD(1e-3, 100, 60, decay_shape="cosin"), r"decay_shape 'cosin'. Did you mean 'cosine'\?"),
        (lambda: Exponential(1e-3, 100), r"min_learning_rate: expected a number > 0.*received 0.0"),
        (
            lambda: Exponential(1e-3, decay_rate=0.5),
            r"total_steps, decay_rate, decay_steps: .*\(None, 0.5, None\)",
        ),
        (
            lambda: Exponential(1e-3, 9, 0, 1e-5, 0.0, 0.5, 3),
            r"either the first or both others, received \(9, 0.5, 3\)",
        ),
        (
            lambda: Piecewise(1.0, [3, 3], [0.5, 0.1]),
            r"boundaries: expected strictly increasing .*received \[3, 3\]",
        ),
        (lambda: Piecewise(1.0, [3], [0.5, 0.1]), r"factors: expected one for each of boundaries=\(3,\)"),
        (lambda: Piecewise(1.0, [3], [-0.5]), r"factors\[0\]: expected a number >= 0, received -0.5"),
        (lambda: Piecewise(1.0, [3], [0.5], 3), r"boundaries: expected more than warmup_steps=3"),
        (lambda: Piecewise(1.0, 3, [0.5]), r"boundaries: expected a list of numbers, received 3"),
        (lambda: Cyclic(1.0, 1), r"cycle_steps: .*received 1"),
        (
            lambda: CosineWithWarmup(1.0, 9, cosine_cycles=10),
            r"cosine_cycles: expected at most 9.*received 10",
        ),
        (
            lambda: CosineWithWarmup(1.0, 9, restart_decay=0.5),
            r"restart_decay: .*cosine_restarts=True, received 0.5",
        ),
        (
            lambda: CosineWithWarmup(1.0, 9, cosine_restarts=1),
            r"cosine_restarts: expected True or False, received 1",
        ),
        (lambda: CosineWithWarmup(1.0, 9, cosine_restarts=True), r"restart_period: .*received None"),
        (
            lambda: CosineWithWarmup(1.0, 9, cosine_restarts=True, restart_period=2, cosine_cycles=2),
            r"cosine_cycles: expected 1.0 with cosine_restarts=True, received 2.0",
        ),
        (
            lambda: CosineWithWarmup(1.0, 9, cosine_restarts=True, restart_period=2, restart_warmup_steps=2),
            r"restart_warmup_steps: expected less than restart_period=2, received 2",
        ),
        (
            lambda: CosineWithWarmup(1.0, 10**9, cosine_restarts=True, restart_period=2),
            r"restart_period: .*at most 65536 cycles up to total_steps=1000000000, received 2",
        ),
        (lambda: join([], []), r"schedules: expected a list of schedules, received \(\)"),
        (lambda: join([ConstantWithWarmup(1.0), 0.1], [3]), r"schedules: .*received 0.1"),
        (
            lambda: join([ConstantWithWarmup(1.0)], [3]),
            r"boundaries: expected one fewer than the 1 sch.*\(3,\)",
        ),
        (lambda: ConstantWithWarmup(1.0).preview(0), r"n: expected a whole number.*received 0"),
    ],
)
def test_bad_input_says_what_and_why(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_numbers_are_normalised():
    schedule = CosineWithWarmup(np.float64(1), np.int64(100), 10.0)
    assert schedule.get_config() == CosineWithWarmup(1.0, 100, 10).get_config()
    assert json.dumps(schedule.get_config())


def test_schedules_are_immutable_values():
    schedule = CosineWithWarmup(1.0, 100, cosine_cycles=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.total_steps = 50
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert schedule != CosineWithWarmup(1.0, 101, cosine_cycles=3)
    assert len({schedule, CosineWithWarmup(1.0, 100, cosine_cycles=3)}) == 1


def test_one_cycle_defaults_are_kept_in_the_config():
    config = OneCycle(0.5, 1000).get_config()
    assert config["warmup_steps"] == 300
    assert config["warmup_init_lr"] == pytest.approx(0.02)
    assert config["min_learning_rate"] == pytest.approx(2e-6)


def test_the_paper_s_triangular_policy():
    rates = Cyclic(1.0, 8, warmup_steps=4, min_learning_rate=0.2, warmup_init_lr=0.2).preview(12).rates
    np.testing.assert_allclose(rates, 0.2 + 0.8 * np.array([0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4]) / 4, atol=1e-6)


def test_cycles_end_where_the_rounded_length_says():
    """The last update of a cycle is near the floor, the next one at the peak, up to the 21474th restart."""
    schedule = CosineWithWarmup(1.0, 2**31 - 1, 11, cosine_restarts=True, restart_period=100_000)
    starts = 11 + 100_000 * np.arange(21_474, 0, -107)
    assert np.all(keras.ops.convert_to_numpy(schedule(starts)) == 1.0)
    assert np.all(keras.ops.convert_to_numpy(schedule(starts - 1)) < 1e-6)


def test_preview():
    preview = LinearWithWarmup(1.0, 1000, 100).preview(2000, points=21)
    assert preview.steps.tolist() == list(range(0, 2001, 100))
    assert preview.rates.dtype == np.float64
    assert preview["rates"][1] == 1.0 and preview.rates[-1] == 0.0
    assert len(LinearWithWarmup(1.0, 1000).preview(5).steps) == 6
    assert len(LinearWithWarmup(1.0, 1000).preview(2**31 - 1).steps) == 200


def test_join_counts_from_its_boundaries():
    parts = [LinearWithWarmup(1.0, 10), ConstantWithWarmup(0.5, 4), stock.ExponentialDecay(0.25, 10, 0.5)]
    schedule = join(parts, [10, 2_000_000_003])
    for t in (0, 9, 10, 12, 14, 1000, 2_000_000_002, 2_000_000_003, 2_000_000_013):
        k = (t >= 10) + (t >= 2_000_000_003)
        assert float(schedule(t)) == pytest.approx(float(parts[k](t - (0, 10, 2_000_000_003)[k])), abs=1e-7)
    assert schedule.peak == 1.0
    assert schedule.preview(20).rates[10:15].tolist() == [0.0, 0.125, 0.25, 0.375, 0.5]


def test_join_is_serialisable_and_nests():
    schedule = join([join([ConstantWithWarmup(1.0), OneCycle(0.5, 10)], [4]), InverseSqrt(0.1, 3)], [20])
    data = json.loads(json.dumps(stock.serialize(schedule)))
    again = stock.deserialize(data)
    assert again == schedule and isinstance(again, Join)
    assert again.preview(40).rates.tolist() == schedule.preview(40).rates.tolist()
    with_stock = join([ConstantWithWarmup(1.0), stock.CosineDecay(0.5, 10)], [4])
    again = stock.deserialize(json.loads(json.dumps(stock.serialize(with_stock))))
    assert again.get_config() == with_stock.get_config()


def test_join_samples_the_peak_of_a_stock_schedule():
    warm = stock.CosineDecay(0.0, 1000, warmup_target=2.0, warmup_steps=100)
    assert join([ConstantWithWarmup(1.0), warm], [4]).peak == pytest.approx(2.0, rel=0.05)


def test_fit_follows_the_schedule():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(LinearWithWarmup(1.0, 8, 4)), loss=lambda y, p: -p, run_eagerly=False)
    model.fit(np.ones((6, 2), "float32"), np.ones((6, 1), "float32"), batch_size=1, epochs=1, verbose=0)
    taken = 0 + 0.25 + 0.5 + 0.75 + 1.0 + 0.75  # the gradient is -1 at each update
    np.testing.assert_allclose(model.get_weights()[0], taken, rtol=1e-6)


def test_every_class_says_what_it_is():
    for cls in (*SCHEDULES.values(), Join):
        assert "Args:" in cls.__doc__ and "Raises:" in cls.__doc__ and ">>>" in cls.__doc__
        assert "capibara_keras>" in keras.saving.get_registered_name(cls)

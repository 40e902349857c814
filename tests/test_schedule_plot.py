"""Schedules before training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.errors import ConfigError
from capibara_keras.schedules import ConstantWithWarmup, CosineWithWarmup, LinearWithWarmup, join

KERAS = keras.optimizers.schedules


def labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


CASES: dict[str, tuple[Any, Any, int]] = {
    "ours": (LinearWithWarmup(1.0, 20, 5), LinearWithWarmup(1.0, 20, 5), 5),
    "of Keras": (KERAS.CosineDecay(0.1, 20, warmup_target=1.0, warmup_steps=4),) * 2 + (4,),
    "joined": (join([ConstantWithWarmup(1.0, 3), LinearWithWarmup(1.0, 9)], [10]),) * 2 + (3,),
    "optimizer": (
        ck.Adam(1.0, scheduler_type="cosine_with_warmup", warmup_steps=5, max_steps=20),
        CosineWithWarmup(1.0, 20, 5),
        5,
    ),
    "optimizer without a total": (
        ck.Adam(1.0, scheduler_type="cosine_with_warmup", warmup_ratio=0.25),
        CosineWithWarmup(1.0, 24, 6),
        6,
    ),
    "wrapped": (keras.optimizers.LossScaleOptimizer(ck.SGD(LinearWithWarmup(1.0, 20))), LinearWithWarmup(1.0, 20), 0),
    "Keras' optimizer": (
        keras.optimizers.SGD(KERAS.ExponentialDecay(1.0, 5, 0.5)),
        KERAS.ExponentialDecay(1.0, 5, 0.5),
        0,
    ),
    "number": (0.5, lambda step: 0.5, 0),
    "optimizer with a number": (ck.SGD(0.5), lambda step: 0.5, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_curves_are_the_rates_of_training(name: str) -> None:
    given, expected, warmup = CASES[name]
    curve = ck.schedule_curve(given, 24)
    assert curve.steps.tolist() == list(range(25))
    np.testing.assert_allclose(curve.rates, [float(expected(step)) for step in range(25)], rtol=1e-6)
    assert curve.warmup_steps == warmup
    text = labels(ck.plot_schedule(given, 24))
    assert (f"warmup: {warmup} updates" in text) == (warmup > 0)


def test_a_rate_assigned_on_top_is_seen_and_nothing_changes() -> None:
    optimizer = ck.Adam(1.0, scheduler_type="linear_with_warmup", max_steps=10)
    optimizer.build([keras.Variable([1.0])])
    optimizer.learning_rate = 0.5
    assert ck.schedule_curve(optimizer, 10).peak == 0.5
    waiting = ck.Adam(1.0, scheduler_type="cosine_with_warmup")
    ck.plot_schedule(waiting, 10)
    with pytest.raises(ConfigError, match="missing total_steps"):
        waiting.get_learning_rate(3)


def test_long_schedules_have_few_points() -> None:
    curve = ck.schedule_curve(LinearWithWarmup(1.0, 10**6), 10**6)
    assert len(curve.steps) <= 1000 and curve.steps[-1] == 10**6 and curve.total_steps == 10**6


@pytest.mark.filterwarnings("error")
def test_files(tmp_path: Path) -> None:
    for i, given in enumerate([CosineWithWarmup(3e-4, 100, 10), 0.0, 5.0]):
        figure = ck.plot_schedule(given, 120, tmp_path / f"{i}.png")
        assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("update (index)", "learning rate")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("schedule", "steps", "message"),
    [
        (LinearWithWarmup(1.0, 10), 0, "steps"),
        (LinearWithWarmup(1.0, 10), "many", "steps"),
        ("cosine", 10, "schedule: expected a number"),
        (None, 10, "schedule: expected a number"),
        (-0.1, 10, "schedule"),
        (lambda: 0.1, 10, "not known before training"),
        (ck.SGD(lambda: 0.1), 10, "not known before training"),
        (KERAS.PolynomialDecay(math.nan, 10), 10, "the rate of update 0 is nan"),
        (ck.Adam(1.0, scheduler_type="wsd", max_steps=5), 10, "missing decay_steps"),
    ],
)
def test_bad_arguments(schedule: Any, steps: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ck.plot_schedule(schedule, steps)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        ck.plot_schedule(0.1, 10, tmp_path / "file" / "deep" / "s.png")

"""The schedules against values of optax and Hugging Face (tests/data/schedules.json)."""

import json
from pathlib import Path

import pytest

from capibara_keras.schedules import (
    WSD,
    CosineWithWarmup,
    InverseSqrt,
    LinearWithWarmup,
    Polynomial,
    SchedulePlan,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "schedules.json").read_text())
P, M, W, T = 6e-4, 6e-5, 2_000, 100_000

OURS = {
    "optax.warmup_cosine(0,P,W,T,M)": CosineWithWarmup(P, T, W, M),
    "optax.linear warm+linear(0,P,W;P->M)": LinearWithWarmup(P, T, W, M),
    "optax.poly p=.5": Polynomial(P, T, W, M, power=0.5),
    "HF cosine num_cycles=.5 (min 0)": CosineWithWarmup(P, T, W),
    "HF hard_restarts cycles=2": CosineWithWarmup(P, T, W, cosine_cycles=2),
    "HF linear": LinearWithWarmup(P, T, W),
    "HF inverse_sqrt": InverseSqrt(P, W),
    "HF wsd lin warm,1-sqrt decay 20k": WSD(
        P, T, 20_000, W, min_learning_rate=0.1 * P, warmup_init_lr=0.1 * P, decay_shape="1-sqrt"
    ),
    "linear_seed(5000,200000,0,3e-4,1e-5)": SchedulePlan.from_options(
        {
            "scheduler_type": "linear_with_warmup",
            "warmup_steps": 5000,
            "training_steps": 200000,
            "start_lr": 0.0,
            "peak_lr": 3e-4,
            "end_lr": 1e-5,
        }
    ).resolve(1.0),
    "poly_seed(power .5,1000,500000,peak1e-4,1e-6)": SchedulePlan.from_options(
        {
            "scheduler_type": "polynomial",
            "power": 0.5,
            "warmup_steps": 1000,
            "total_steps": 500000,
            "end_learning_rate": 1e-6,
        }
    ).resolve(1e-4),
    "restarts_seed(10000,500000,1e-6,decay .8,period 1e5,peak 1e-4)": SchedulePlan(scheduler_type="cosine_with_warmup")
    .merged(
        {
            "warmup_steps": 10000,
            "max_steps": 500000,
            "min_learning_rate": 1e-6,
            "cosine_restarts": True,
            "restart_decay": 0.8,
            "restart_period": 100000,
        }
    )
    .resolve(1e-4),
}


def test_every_reference_is_compared():
    assert OURS.keys() == REFERENCE.keys() - {"parameters"}


@pytest.mark.parametrize("name", OURS)
def test_reference(name):
    values = REFERENCE[name]["values"]
    rates = {int(step): float(OURS[name](int(step))) for step in values}
    wanted = {int(step): rate for step, rate in values.items()}
    assert rates == pytest.approx(wanted, rel=0, abs=1e-6 * OURS[name].peak)

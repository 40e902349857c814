"""Data that come in the same order in each epoch: their order is no trend, and hides none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.monitoring import Alert, Monitor
from capibara_keras.monitoring.order import BatchOrder
from tests.models import regression, regressor
from tests.monitoring.streams import SUBJECT, healthy

Loss = Callable[[int, float], float]
UNKNOWN = dataclasses.replace(SUBJECT, baseline_loss=math.nan)


def said(epoch: int, updates: int, loss: Loss, level: str = "warning", gradient: Loss | None = None) -> list[Alert]:
    """What is said to a training whose loss is a function of the update and of the place in the epoch, from 0 to 1.
    Each batch has a loss of its own, and the gradient goes with it unless it is given too."""
    monitor, found = Monitor(UNKNOWN), []
    noise = 1 + 0.05 * np.random.default_rng(0).normal(size=epoch)
    for x in healthy(updates):
        place = x.update % epoch
        if place == 0:
            monitor.begin_epoch()
        value = loss(x.update, place / epoch) * noise[place]
        norms = x.gradient_norms * (value / x.loss if gradient is None else gradient(x.update, place))
        change = {"loss": value, "gradient_norms": norms, "gradient_norm": float(np.linalg.norm(norms))}
        found += monitor.observe(dataclasses.replace(x, **change))
    return [alert for alert in found if alert.level == level]


def ids(alerts: list[Alert]) -> list[tuple[str, int]]:
    return [(alert.id, alert.step) for alert in alerts]


# Order that is none of a trend -----------------------------------------------------------------------------------


def test_data_that_swing() -> None:
    """As sorted labels do, with a period that is none of the epoch's parts."""
    waves = lambda t, place: 1 + math.exp(-t / 100) + 0.6 * math.sin(2 * math.pi * 2.6 * place)  # noqa: E731
    assert said(112, 800, waves) == []


@pytest.mark.parametrize("epoch", [310, 500])
def test_a_hard_batch_is_told_once(epoch: int) -> None:
    """By its loss and by its gradient, not in each epoch again."""
    hard = lambda t, place: 300.0 if place == 0.5 else 0.3 + math.exp(-t / 50)  # noqa: E731
    assert ids(said(epoch, 3 * epoch, hard)) == [("loss_spike", epoch // 2)]
    assert ids(said(epoch, 3 * epoch, hard, "critical")) == [("gradient_explosion", epoch // 2)]


def test_data_that_become_harder_diverge_once() -> None:
    """In the first epoch nobody knows; after it the same batches are compared."""
    harder = lambda t, place: 0.2 + 4 * place**2  # noqa: E731
    (alert,) = said(250, 1200, harder, "critical")
    assert alert.id == "loss_divergence" and alert.step < 250


def test_falling_is_seen_below_the_order() -> None:
    """Each batch has 5 % less than an epoch ago, while the last 150 say nothing."""
    falling = lambda t, place: 0.95 ** (t // 100) * (1.5 + math.cos(2 * math.pi * place))  # noqa: E731
    assert "loss_plateau" not in [alert.id for alert in said(100, 1500, falling, "info")]
    still = lambda t, place: 1.5 + math.cos(2 * math.pi * place) + 0.5 * 0.9**t  # noqa: E731
    assert "loss_plateau" in [alert.id for alert in said(100, 1500, still, "info")]


# What is wrong all the same --------------------------------------------------------------------------------------


def test_a_spike_in_a_new_place() -> None:
    hard = lambda t, place: 2000.0 if t == 700 else 300.0 if place == 0.5 else 0.3 + math.exp(-t / 50)  # noqa: E731
    assert ids(said(300, 1200, hard)) == [("loss_spike", 150), ("loss_spike", 700)]


@pytest.mark.parametrize("epoch", [1, 10, 100])
def test_slow_divergence(epoch: int) -> None:
    """By less than a third in an epoch, of which all batches are the same."""
    rising = lambda t, place: (1 + place) * (1.0 if t < 300 else 1.003 ** (t - 300))  # noqa: E731
    (alert,) = said(epoch, 1000, rising, "critical")
    assert alert.id == "loss_divergence" and 600 < alert.step < 850


def test_a_swing_that_is_none_of_the_data() -> None:
    swing = lambda t, place: (1 + math.exp(-t / 100)) * (1 + 0.3 * math.sin(t / 3)) + 0.2 * place  # noqa: E731
    assert [alert.id for alert in said(100, 800, swing)] == ["loss_oscillation"]


@pytest.mark.parametrize("epoch", [1, 8])
def test_epochs_shorter_than_what_is_wrong(epoch: int) -> None:
    """Of one batch, say: what each update has in common with the one before is no order."""
    swing = lambda t, place: (1 + math.exp(-t / 100)) * (1 + 0.3 * math.sin(t / 3)) + 0.2 * place  # noqa: E731
    assert [alert.id for alert in said(epoch, 500, swing)] == ["loss_oscillation"]
    still, rising = lambda t, place: 1.0, lambda t, place: 1.25 ** max(0, t - 200)
    assert [alert.id for alert in said(epoch, 300, still, "critical", rising)][:1] == ["gradient_explosion"]
    creeping = lambda t, place: 1 + math.exp(-t / 20) - 1e-6 * t  # noqa: E731
    assert "loss_plateau" in [alert.id for alert in said(epoch, 600, creeping, "info")]


# Whether it repeats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [5, 30, 200, 1500])
@pytest.mark.parametrize("fixed", [True, False])
def test_order_shows_in_the_batches(epoch: int, fixed: bool) -> None:
    """Behind a falling loss that both orders have."""
    order, rng = BatchOrder(), np.random.default_rng(epoch)
    own = rng.normal(size=epoch)
    for t in range(max(200, 2 * epoch)):
        if t % epoch == 0:
            order.begin_epoch()
        noise = own[t % epoch] if fixed else rng.normal()
        order.push(1 + 3 * math.exp(-t / 100) + 0.1 * noise + 0.05 * rng.normal(), 1.0)
    assert order.repeats() == fixed
    assert len(order.same_losses_before(3)) == (3 if fixed else 0)


def test_a_buffer_shuffles_neighbours_only() -> None:
    order, rng = BatchOrder(), np.random.default_rng(0)
    for _ in range(3):
        order.begin_epoch()
        for place in range(640):
            order.push(2 + math.sin(place / 25) + 0.5 * rng.normal(), 1.0)
    assert order.repeats()


def test_fit_tells_where_epochs_begin() -> None:
    model, monitor = regressor(ck.SGD(1e-3)), ck.HealthMonitor(print_fn=lambda text: None)
    model.fit(*regression(), batch_size=2, epochs=8, shuffle=False, verbose=0, callbacks=[monitor])
    order = monitor.watch.monitor.history.order
    assert order.epoch_updates == 16 and order.repeats()

"""What becomes of micro-batches that do not fill a window."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.schedules import CosineWithWarmup
from tests.accumulation.common import Y, fit, sgd, weight
from tests.models import line, variables


def test_the_remainder_is_carried_if_that_was_asked_for() -> None:
    """6 batches with K = 4: the two that are left open the window of the next `fit`."""
    model = fit(sgd(4, remainder="carry"), ck.Attach())
    assert weight(model) == -2.5
    assert model.optimizer.pending_micro_batches == 2
    model.fit(np.ones((2, 1)), Y[:2], batch_size=1, shuffle=False, verbose=0, callbacks=[ck.Attach()])
    assert weight(model) == -2.5 - (5 + 6 + 1 + 2) / 4


def test_without_a_callback_the_remainder_is_carried() -> None:
    """A warning says so, once; `flush` uses it."""
    model = line(sgd(4), run_eagerly=True)
    arguments: dict[str, Any] = {"batch_size": 1, "shuffle": False, "verbose": 0}
    with pytest.warns(UserWarning, match="2 micro-batches do not fill a window, and wait for more"):
        model.fit(np.ones_like(Y), Y, **arguments)
    assert (weight(model), model.optimizer.pending_micro_batches) == (-2.5, 2)
    model.optimizer.flush()
    assert (weight(model), model.optimizer.pending_micro_batches) == (-8.0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(np.ones_like(Y), Y, **arguments)
    assert model.optimizer.pending_micro_batches == 2


@pytest.mark.parametrize("callbacks", [[ck.Attach()], []])
def test_no_warning_where_nothing_is_left_behind_unasked(callbacks: list[Any]) -> None:
    """A remainder that is used, or that was to be carried; or none."""
    for optimizer in (sgd(4, remainder="flush" if callbacks else "carry"), sgd(3)):
        model = line(optimizer, run_eagerly=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model.fit(np.ones_like(Y), Y, batch_size=1, shuffle=False, verbose=0, callbacks=callbacks)


def test_a_callback_in_an_earlier_fit_does_not_count() -> None:
    model = fit(sgd(4), ck.Attach())
    assert weight(model) == -8.0
    model.fit(np.ones((2, 1)), Y[:2], batch_size=1, shuffle=False, verbose=0)
    assert (weight(model), model.optimizer.pending_micro_batches) == (-8.0, 2)


def test_windows_go_on_across_epochs() -> None:
    """Only the end of the data flushes: 3 epochs of 2 batches are a window of 4 and a rest of 2."""
    optimizer = sgd(4)
    model = fit(optimizer, ck.Attach(), y=Y[:2], epochs=3)
    assert weight(model) == -1.5 - 1.5
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("callback", [ck.Attach, ck.LogStatistics, ck.ClippingStatistics])
def test_every_callback_of_the_package_flushes(callback: Any) -> None:
    model = fit(sgd(4), callback())
    assert weight(model) == -8.0
    assert model.optimizer.pending_micro_batches == 0


def test_the_remainder_counts_in_the_average() -> None:
    """Weights -2.5 and -8: with EMA of momentum ½, the final weight is -2.5 / 2 - 8 / 2."""
    assert weight(fit(sgd(4, use_ema=True, ema_momentum=0.5), ck.Attach())) == -5.25


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("first", ["attach", "stopping"])
def test_early_stopping_flushes_too(first: str, average: bool) -> None:
    """Stopped after the second of four epochs of 3 batches: a window 1, 2, 3, 1 and a rest 2, 3, whoever comes
    first in the list of callbacks."""
    callbacks = [ck.Attach(), keras.callbacks.EarlyStopping("loss", patience=1, mode="max")]
    if first == "stopping":
        callbacks.reverse()
    model = fit(sgd(4, use_ema=average, ema_momentum=0.5), *callbacks, y=Y[:3], epochs=4)
    assert int(model.optimizer.iterations) == 2
    assert model.optimizer.pending_micro_batches == 0
    assert weight(model) == pytest.approx((-1.75 - 4.25) / 2 if average else -4.25)


def test_restored_best_weights_are_not_touched() -> None:
    """The rest is used before EarlyStopping brings the best weights back: those of the first epoch."""
    stopping = keras.callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    for callbacks in ([ck.Attach(), stopping], [stopping, ck.Attach()]):
        assert weight(fit(sgd(2), *callbacks, y=Y[:3], epochs=4)) == -1.5


def test_an_error_in_the_middle_leaves_the_window_as_it_is() -> None:
    """Such a run is to be continued, not finished."""

    def fail(batch: int, logs: Any) -> None:
        if batch == 1:
            raise RuntimeError("lost")

    model = line(sgd(4))
    with pytest.raises(RuntimeError, match="lost"):
        model.fit(
            np.ones_like(Y), Y, batch_size=1, shuffle=False, verbose=0,
            callbacks=[ck.Attach(), keras.callbacks.LambdaCallback(on_train_batch_end=fail)],
        )  # fmt: skip
    assert (weight(model), model.optimizer.pending_micro_batches) == (0.0, 2)


def test_a_flush_is_an_update_like_any_other() -> None:
    """It counts, moves the schedule, and a gradient that is not finite is skipped in it."""
    optimizer, w = ck.SGD(CosineWithWarmup(1.0, total_steps=2), gradient_accumulation_steps=4), keras.Variable([0.0])
    optimizer.apply([ops.array([1.0])], [w])
    optimizer.flush()
    optimizer.apply([ops.array([np.nan], "float32")], [w])
    optimizer.flush()
    assert (w.numpy().item(), int(optimizer.iterations)) == (-1.0, 1)
    assert optimizer.counters()["skipped"] == 1
    optimizer.apply([ops.array([1.0])], [w])
    optimizer.flush()
    assert w.numpy().item() == pytest.approx(-1.5)


def test_a_variable_without_gradient_in_the_rest_stays() -> None:
    """It had gradients in the window before; with momentum it would move."""
    a, b = variables((2,), (2,))
    optimizer = sgd(2, momentum=0.9)
    for _ in range(2):
        optimizer.apply([ops.ones(2), ops.ones(2)], [a, b])
    before = b.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.apply([ops.ones(2), None], [a, b])
    optimizer.flush()
    np.testing.assert_array_equal(b.numpy(), before)

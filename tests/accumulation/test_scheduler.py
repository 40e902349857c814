"""Another number of micro-batches while training goes on."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import capibara_keras as ck
from tests.accumulation.common import Y, fit, sgd, weight


class Counting(keras.Model):
    """`line`, counting the traces of its train step."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        self.traces = 0

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.traces += 1
        return super().train_step(data)


def test_the_scheduler_changes_k_without_a_new_trace() -> None:
    """K = 1, 2, 2, 4 in four epochs of 6 batches: 6 + 3 + 3 updates, and one and a half windows of 4."""
    model, seen = Counting(), []
    model.compile(sgd(), loss=lambda y, w: y * w)
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append((model.traces, int(model.optimizer.iterations)))
    )
    model.fit(
        np.ones_like(Y), Y, batch_size=1, epochs=4, shuffle=False, verbose=0,
        callbacks=[watch, ck.GradientAccumulationScheduler({0: 1, 1: 2, 3: 4})],
    )  # fmt: skip
    assert [updates for _, updates in seen] == [6, 9, 12, 13]
    assert len({traces for traces, _ in seen}) == 1
    assert int(model.optimizer.iterations) == 14  # with the rest
    steps = [1, 2, 3, 4, 5, 6, 1.5, 3.5, 5.5, 1.5, 3.5, 5.5, 2.5, 5.5]
    assert weight(model) == pytest.approx(-sum(steps))


@pytest.mark.parametrize(
    ("schedule", "steps", "epochs", "updates"),
    [
        ({0: 1, 1: 2, 3: 4}, 6, 4, 6 + 3 + 3 + 1),
        ({0: 4}, 6, 4, 6),  # 24 micro-batches: windows go on across epochs
        ({0: 4, 2: 2}, 3, 4, 1 + 1 + 2),  # of 4 and, over from the second epoch, of 2 + 1; then of 2, 2
        ({0: 10, 1: 2}, 3, 3, 3),  # an open window of 3 is closed by the next micro-batch, then 1 and 1½ of 2
        ({1: 3}, 2, 3, 2 + 1),  # before the first entry K is the optimizer's own, 1
    ],
)
def test_the_scheduler_tells_the_total(schedule: dict[int, int], steps: int, epochs: int, updates: int) -> None:
    """The updates that there will be, without the rest: the schedule is at its end then."""
    optimizer = sgd(scheduler_type="linear_with_warmup", warmup_steps=0)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_end=lambda logs: seen.append(optimizer.pending_micro_batches),
    )
    callback = ck.GradientAccumulationScheduler(schedule)
    optimizer.remainder = "carry"
    fit(optimizer, callback, watch, y=Y[:steps], epochs=epochs)
    assert int(optimizer.iterations) == updates
    assert optimizer.get_learning_rate(step=updates) == 0.0
    assert optimizer.get_learning_rate(step=updates - 1) == pytest.approx(1 / updates)


def test_k_can_be_changed_in_the_middle_of_a_window() -> None:
    """Two micro-batches are in; with K = 3 one more is missing, with K = 1 it is as well."""
    for k in (3, 1):
        optimizer, w = sgd(8, accumulator=True), keras.Variable([0.0])
        for g in (1.0, 2.0):
            optimizer.apply([ops.array([g])], [w])
        optimizer.gradient_accumulation_steps = k
        optimizer.apply([ops.array([6.0])], [w])
        assert w.numpy().item() == -3.0


@pytest.mark.parametrize(
    "schedule", [{}, {-1: 2}, {0: 0}, {0: 1.5}, {0.5: 2}, {0: "2"}, {0: 1, "1": 2}, [1, 2], 4, None]
)
def test_bad_schedules_of_k(schedule: Any) -> None:
    with pytest.raises(ck.ConfigError, match="schedule"):
        ck.GradientAccumulationScheduler(schedule)

"""What reaches the optimizer through a callback, what without one, and options that change between two fits."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests.models import line, regression, regressor, values

ONES = np.ones((12, 1), "float32")
sgd = partial(ck.SGD, jit_compile=False)
RATIOS = {"scheduler_type": "linear_with_warmup", "warmup_ratio": 0.25, "min_lr_ratio": 0.1}


def rates(optimizer: Any, data: Any = (ONES, ONES), **fit: Any) -> list[float]:
    """The rates of the updates in a `fit` with LogStatistics, an entry per batch."""
    seen: list[float] = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["learning_rate"]))
    line(optimizer).fit(*data, verbose=0, callbacks=[ck.LogStatistics(), watch], **({"batch_size": 3} | fit))
    return seen


def test_attach_brings_the_total() -> None:
    """4 batches in 2 epochs: 8 updates, 2 of warmup; a floor of a tenth of the peak at update 8."""
    optimizer = sgd(1.0, **RATIOS)
    expected = [0.0, 0.5, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25]
    assert rates(optimizer, epochs=2) == pytest.approx(expected)
    assert optimizer.get_learning_rate(step=8) == pytest.approx(0.1)


def test_attach_counts_updates_not_micro_batches() -> None:
    """12 batches in 2 epochs are 24; with K = 3, 8 updates as above."""
    optimizer = sgd(1.0, gradient_accumulation_steps=3, **RATIOS)
    seen = rates(optimizer, epochs=2, batch_size=1)
    assert seen[2::3] == pytest.approx([0.0, 0.5, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25])


def test_attach_knows_steps_per_epoch() -> None:
    """A generator has no length, `steps_per_epoch` says it."""

    def forever() -> Any:
        while True:
            yield ONES[:3], ONES[:3]

    optimizer = sgd(1.0, **RATIOS)
    assert rates(optimizer, (forever(),), epochs=2, steps_per_epoch=4, batch_size=None, shuffle=False)[
        2
    ] == pytest.approx(1.0)
    assert optimizer.get_learning_rate(step=8) == pytest.approx(0.1)


def test_a_given_total_wins_over_the_one_from_fit() -> None:
    optimizer = sgd(1.0, scheduler_type="linear_with_warmup", total_steps=100)
    assert rates(optimizer)[-1] == pytest.approx(0.97)


@pytest.mark.parametrize("how", ["apply", "fit", "read"])
def test_a_missing_total_says_what_to_do(how: str) -> None:
    """Legal until the rate is needed; then the message names the option, the callback and the call."""
    optimizer = sgd(1.0, **RATIOS)
    with pytest.raises(ck.ConfigError, match=r"missing total_steps.*callback.*attach\(total_steps=") as raised:
        if how == "apply":
            optimizer.apply([ops.ones(1)], [keras.Variable([1.0])])
        elif how == "fit":
            line(optimizer).fit(ONES, ONES, verbose=0)
        else:
            optimizer.get_learning_rate()
    assert "max_steps" in str(raised.value)  # other names of the option too


def test_data_without_a_length_are_named() -> None:
    """Before the first batch: the callback is there, but cannot know the total."""

    def forever() -> Any:
        while True:
            yield ONES[:3], ONES[:3]

    with pytest.raises(ck.ConfigError, match=r"the data have no length.*steps_per_epoch=.*total_steps="):
        line(sgd(1.0, **RATIOS)).fit(forever(), verbose=0, callbacks=[ck.Attach()])


def test_a_fit_after_the_end_of_the_schedule_warns() -> None:
    """The same `fit` again would train at the rate 0; with `initial_epoch` it goes on, and says nothing."""
    model = line(sgd(1.0, scheduler_type="linear_with_warmup"))
    model.fit(ONES, ONES, batch_size=3, epochs=2, verbose=0, callbacks=[ck.Attach()])
    with pytest.warns(UserWarning, match=r"ended at update 8, and 8 were made.*stays 0\. To go on, .*initial_epoch"):
        model.fit(ONES, ONES, batch_size=3, epochs=2, verbose=0, callbacks=[ck.Attach()])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(ONES, ONES, batch_size=3, initial_epoch=4, epochs=5, verbose=0, callbacks=[ck.Attach()])


def test_attach_by_hand() -> None:
    optimizer = sgd(1.0, **RATIOS)
    optimizer.attach(total_steps=8)
    w = keras.Variable([0.0])
    for _ in range(3):
        optimizer.apply([ops.ones(1)], [w])
    assert w.numpy().item() == pytest.approx(-1.5)


@pytest.mark.parametrize("total", [0, -1, 1.5, "8", True])
def test_attach_refuses_a_total_that_is_none(total: Any) -> None:
    with pytest.raises(ck.ConfigError, match=f"total_steps: expected a whole number >= 1, received {total!r}"):
        sgd(1.0, **RATIOS).attach(total_steps=total)


# Statistics --------------------------------------------------------------------------------------------------


def test_log_statistics_in_history() -> None:
    """An entry per epoch, with the values at its end; with a gradient of 1, the norm is 1."""
    optimizer = sgd(0.5)
    history = line(optimizer).fit(
        ONES, ONES, batch_size=3, epochs=3, verbose=0,
        callbacks=[ck.LogStatistics(names=("learning_rate", "gradient_norm", "skipped", "clipped"))],
    )  # fmt: skip
    assert history.history["learning_rate"] == [0.5] * 3
    assert history.history["gradient_norm"] == pytest.approx([1.0] * 3)
    assert history.history["skipped"] == history.history["clipped"] == [0.0] * 3


def test_log_statistics_counts_skips_and_clips() -> None:
    y = ONES.copy()
    y[4] = np.nan
    history = line(sgd(0.5, clipvalue=0.5)).fit(
        ONES, y, batch_size=3, epochs=2, verbose=0, shuffle=False,
        callbacks=[ck.LogStatistics(names=("skipped", "clipped"))],
    )  # fmt: skip
    assert history.history["skipped"] == [1.0, 2.0]  # one batch of four, in each epoch
    assert history.history["clipped"] == [3.0, 6.0]


def test_log_statistics_reads_every_so_many_batches() -> None:
    """Between two readings, the last one stands."""
    seen: list[float] = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["gradient_norm"]))
    x, y = ONES[:6], np.arange(1.0, 7.0, dtype="float32")[:, None]
    line(sgd(0.5)).fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[ck.LogStatistics(every=2), watch])
    assert seen == pytest.approx([1.0, 2.0, 2.0, 4.0, 4.0, 6.0])


def test_log_statistics_of_a_model_that_is_frozen() -> None:
    """There is nothing to measure, and nothing to stop for."""
    model = line(sgd(0.5))
    model.trainable = False
    model.compile(sgd(0.5), "mse")
    history = model.fit(ONES, ONES, verbose=0, callbacks=[ck.LogStatistics(), ck.HealthMonitor()])
    assert np.isnan(history.history["gradient_norm"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every: expected a whole number >= 1, received 0"),
        ({"names": ("gradient_nrom",)}, "Did you mean 'gradient_norm'"),
    ],
)
def test_log_statistics_refuses_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        ck.LogStatistics(**arguments)


def test_callbacks_refuse_a_foreign_optimizer() -> None:
    with pytest.raises(TypeError, match=r"one optimizer of capibara_keras, found 0 in SGD.*from_keras"):
        line(keras.optimizers.SGD()).fit(ONES, ONES, verbose=0, callbacks=[ck.LogStatistics()])


# Gradients that are not finite -------------------------------------------------------------------------------


def test_raise_in_a_loop_of_ones_own() -> None:
    """The message names the update and the variable; everything is as before."""
    good, bad = keras.Variable([1.0], name="good"), keras.Variable([1.0], name="bad")
    optimizer = ck.Adam(0.5, nonfinite="raise")
    optimizer.apply([ops.ones(1), ops.ones(1)], [good, bad])
    before = values([good, bad])
    with pytest.raises(FloatingPointError, match="update 1: the gradient is not finite in bad;"):
        optimizer.apply([ops.ones(1), ops.full((1,), float("nan"))], [good, bad])
    np.testing.assert_array_equal(values([good, bad]), before)
    optimizer.apply([ops.ones(1), ops.ones(1)], [good, bad])  # and goes on
    assert int(optimizer.iterations) == 2


@pytest.mark.parametrize("position", [3, 11], ids=["within the epoch", "at its end"])
def test_raise_in_fit(position: int) -> None:
    """At the next batch or at the end of the epoch; the weights are those before the bad batch."""
    y = ONES.copy()
    y[position] = np.nan
    model = line(sgd(1.0, nonfinite="raise"))
    with pytest.raises(FloatingPointError, match=r"the gradient is not finite in .*kernel"):
        model.fit(ONES, y, batch_size=3, epochs=2, shuffle=False, verbose=0, callbacks=[ck.Attach()])
    assert values(model)[0].item() == -(position // 3)


def test_raise_in_fit_without_a_callback_skips() -> None:
    """A compiled train step cannot raise: the documented behaviour is that of "skip"."""
    y = ONES.copy()
    y[3] = np.nan
    model = line(sgd(1.0, nonfinite="raise"))
    model.fit(ONES, y, batch_size=3, shuffle=False, verbose=0)
    assert values(model)[0].item() == -3.0
    assert model.optimizer.counters()["skipped"] == 1


def test_propagate() -> None:
    w = keras.Variable([1.0, 1.0])
    sgd(1.0, nonfinite="propagate").apply([ops.array([1.0, float("nan")])], [w])
    np.testing.assert_array_equal(w.numpy(), [0.0, np.nan])


# Options between two fits ------------------------------------------------------------------------------------


def step(model: keras.Model, *callbacks: keras.callbacks.Callback) -> float:
    """How far the weight of `line` goes in a `fit` of one update, with a gradient of 1."""
    before = values(model)[0].item()
    model.fit(ONES, ONES, batch_size=12, verbose=0, callbacks=list(callbacks))
    return before - values(model)[0].item()


def silently(change: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        change()


@pytest.mark.parametrize(
    ("options", "change", "expected"),
    [
        ({"global_clipnorm": 0.5}, {"global_clipnorm": 0.25}, [0.5, 0.25]),
        ({"momentum": 0.5}, {"momentum": 0.25}, [1.0, 1.25]),
        ({"weight_decay": 0.5}, {"weight_decay": 0.0}, [1.0, 1.0]),
    ],
)
def test_numbers_change_at_once_and_without_a_callback(options: Any, change: Any, expected: list[float]) -> None:
    """Limit, momentum and decay are variables of the compiled step: no new trace, no warning."""
    optimizer = ck.SGD(1.0, **options)
    model = line(optimizer)
    first = step(model)
    silently(lambda: optimizer.reconfigure(change))
    assert [first, step(model)] == pytest.approx(expected)


CHANGES = {
    "clipping": ({}, lambda o: setattr(o, "global_clipnorm", 0.25), 0.25),
    "schedule": ({}, lambda o: setattr(o, "learning_rate", ck.schedules.LinearWithWarmup(1.0, 4)), 0.75),
    "schedule options": ({}, lambda o: o.configure_linear_scheduler({"total_steps": 4}), 0.75),
    "decay": ({}, lambda o: setattr(o, "weight_decay", 0.5), 0.5),
    "direction": ({"weight_decay": 0.5}, lambda o: o.reconfigure({"maximize": True}), -1.5),
}
"""Options of the first fit; a change that is compiled in; what it makes of the second step."""


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_compiled_in_changes_with_a_callback(what: str) -> None:
    options, change, expected = CHANGES[what]
    optimizer = sgd(1.0, **options)
    model = line(optimizer)
    assert step(model, ck.Attach()) == pytest.approx(1.0)
    silently(lambda: change(optimizer))
    assert step(model, ck.Attach()) == pytest.approx(expected)


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_compiled_in_warns_without_a_callback(what: str) -> None:
    """The warning names two ways out; both work."""
    options, change, expected = CHANGES[what]
    for way in ("callback", "make_train_function")[: 2 if what == "clipping" else 1]:
        optimizer = sgd(1.0, **options)
        model = line(optimizer)
        assert step(model) == pytest.approx(1.0)
        with pytest.warns(UserWarning, match=r"attach a callback.*make_train_function\(force=True\)"):
            change(optimizer)
        if way == "callback":
            assert step(model, ck.LogStatistics()) == pytest.approx(expected)
        else:
            model.make_train_function(force=True)
            assert step(model) == pytest.approx(expected)


def test_changes_in_an_eager_loop_act_at_once() -> None:
    w = keras.Variable([0.0])
    optimizer = sgd(1.0)
    optimizer.apply([ops.ones(1)], [w])
    silently(lambda: setattr(optimizer, "clipvalue", 0.25))
    optimizer.apply([ops.ones(1)], [w])
    assert w.numpy().item() == -1.25


@pytest.mark.parametrize(
    "change",
    [
        {"momentum": 0.5},
        {"use_ema": True},
    ],
)
def test_changes_of_the_state_are_refused_after_build(change: dict[str, Any]) -> None:
    """Nothing of them takes effect, and the message says what to do instead."""
    optimizer = sgd(1.0)
    before = optimizer.get_config()
    optimizer.build([keras.Variable([0.0])])
    with pytest.raises(ck.ConfigError, match=r"the optimizer is built.*before the first update"):
        optimizer.reconfigure(change)
    assert optimizer.get_config() == before


def test_total_of_a_second_fit() -> None:
    """`initial_epoch` continues a run: its total is that of the whole, and the rates go on where they were."""
    x, y = regression()
    model = regressor(sgd(1e-3, scheduler_type="linear_with_warmup"))
    model.fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[ck.Attach()])
    assert model.optimizer.get_learning_rate() == 0.0  # 4 of 4
    model.fit(x, y, batch_size=8, initial_epoch=1, epochs=4, verbose=0, callbacks=[ck.Attach()])
    assert model.optimizer.get_learning_rate(step=8) == pytest.approx(0.5e-3)  # of 16
    assert int(model.optimizer.iterations) == 16

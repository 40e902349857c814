"""What the update itself keeps for monitoring: the loss, and probes where a monitor asks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from capibara_keras import probes
from tests.models import classifier, digits, regression, regressor
from tests.thinning import thinned


def losses(optimizer: ck.Optimizer) -> np.ndarray:
    return optimizer.recent_updates().statistics["loss"]


@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
@pytest.mark.parametrize("micro", thinned([2, 1], 2))
def test_fit_tells_the_loss(compiled: dict[str, bool], micro: int) -> None:
    optimizer = ck.SGD(0.01, gradient_accumulation_steps=micro, loss_scale_factor=8.0, loss_divided=micro > 1)
    history = regressor(optimizer, **compiled).fit(*regression(), batch_size=4, epochs=2, verbose=0).history["loss"]
    found = losses(optimizer).reshape(2, 8 // micro)
    np.testing.assert_allclose(found.mean(1), history, rtol=1e-5)


def test_an_untold_loss_is_not_known() -> None:
    w, optimizer = keras.Variable([1.0]), ck.SGD()
    for told in (1.0, None, float("nan"), 2.0):
        optimizer.build([w])
        if told is not None:
            optimizer.observe(told)
        optimizer.apply([ops.array([0.0])], [w])
    np.testing.assert_equal(losses(optimizer), [1.0, np.nan, np.inf, 2.0])


def test_observe_inside_a_traced_step() -> None:
    w, optimizer = keras.Variable([3.0]), ck.SGD(0.1)
    optimizer.build([w])

    @tf.function(jit_compile=True)
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w.value**2)
        optimizer.observe(loss)
        optimizer.apply([tape.gradient(loss, w.value)], [w])

    step()
    step()
    np.testing.assert_allclose(losses(optimizer), [9.0, 5.76], rtol=1e-6)


@pytest.mark.parametrize("loss", [np.ones(3), ops.ones((2,))])
def test_observe_wants_a_scalar(loss: object) -> None:
    optimizer = ck.SGD()
    with pytest.raises(ck.ConfigError, match="not built"):
        optimizer.observe(1.0)
    optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ck.ConfigError, match="expected a scalar"):
        optimizer.observe(loss)


def test_a_gradient_that_is_not_finite_has_an_infinite_norm() -> None:
    optimizer = ck.SGD()
    optimizer.apply([ops.array([float("nan")])], [keras.Variable([1.0])])
    assert optimizer.statistics().gradient_norm == np.inf


def test_weights_that_are_not_finite_have_an_infinite_norm() -> None:
    optimizer = ck.SGD(statistics_every=1)
    optimizer.apply([ops.array([1.0])], [keras.Variable([float("nan")])])
    assert optimizer.statistics().parameter_norm == np.inf


def test_units_without_a_gradient_are_seen() -> None:
    """A unit whose bias is far below 0 never fires."""
    model = classifier(ck.SGD(0.01, statistics_every=4))
    kernel, bias, *rest = model.get_weights()
    bias[[2, 5]] = -100
    model.set_weights([kernel, bias, *rest])
    model.fit(*digits(64), batch_size=8, epochs=2, verbose=0)
    last_active = ops.convert_to_numpy(model.optimizer._state.probes[0])
    assert len(last_active) == 16 + 10
    assert {2, 5} <= set(np.flatnonzero(last_active == 0)) < set(range(16))
    assert (last_active[16:] == 16).all()


def test_probes_start_with_the_monitor() -> None:
    optimizer = ck.SGD(0.01)
    assert not optimizer.built
    model = regressor(optimizer)
    model.fit(*regression(), batch_size=8, verbose=0)
    assert optimizer._state.probes == []
    optimizer.statistics_every = 2
    assert ops.convert_to_numpy(optimizer._state.probes[0]).tolist() == [4] * 4


def test_alignment_is_the_product_with_the_mean_of_earlier_gradients() -> None:
    w, optimizer = keras.Variable([0.0, 0.0]), ck.Adam(beta_1=0.5, statistics_every=1)
    optimizer.apply([ops.array([1.0, 2.0])], [w])
    optimizer.apply([ops.array([3.0, 1.0])], [w])
    dot, square = ops.convert_to_numpy(optimizer._state.probes[2])
    m = 0.5 * np.array([1.0, 2.0]) / (1 - 0.5**2)
    np.testing.assert_allclose([dot, square], [m @ [3.0, 1.0], 10.0], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_grid_of_half_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    exact = (1e-6 * rng.normal(size=1000)).astype("float32")
    _, count = probes.entries(ops.array(exact))
    assert float(count) == 0
    zero, count = probes.entries(ops.array(exact.astype("float16").astype("float32")))
    rounded = exact.astype("float16")
    assert float(zero) == pytest.approx((rounded == 0).mean())
    assert float(count) == (rounded != 0).sum()

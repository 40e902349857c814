"""Loss scaling, mixed and low precision, Keras' optimizer wrappers, variables overwritten with their gradient."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import capibara_keras as ck
from tests.models import classifier, digits, line, regression, regressor, values, variables


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    """A global dtype policy for the test."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def fitted(optimizer: Any, **fit: Any) -> keras.Model:
    model = regressor(optimizer)
    model.fit(*regression(), batch_size=8, epochs=2, shuffle=False, verbose=0, **fit)
    return model


@cache
def plain() -> keras.Model:
    return fitted(ck.Adam(0.01, global_clipnorm=0.5))


def test_loss_scale_factor_cancels_out() -> None:
    """A power of two: only the exponents of the gradients change, and change back."""
    scaled = fitted(ck.Adam(0.01, global_clipnorm=0.5, loss_scale_factor=1024.0))
    for a, b in zip(values(plain()), values(scaled), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    norms = [m.optimizer.statistics().gradient_norm for m in (plain(), scaled)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)  # in units of the loss


@pytest.mark.parametrize("accumulation", [None, 2])
def test_loss_scale_factor_with_sparse_gradients(accumulation: int | None) -> None:
    """Rows 0, 0 and 2 with gradients 1, 2 and 4, all times 8: w_0 -= 3, w_2 -= 4."""
    w = keras.Variable(np.zeros((3, 1), "float32"))
    optimizer = ck.SGD(1.0, loss_scale_factor=8.0, gradient_accumulation_steps=accumulation, jit_compile=False)
    rows = tf.IndexedSlices(tf.constant([[8.0], [16.0], [32.0]]), tf.constant([0, 0, 2]), tf.constant([3, 1]))
    for _ in range(accumulation or 1):
        optimizer.apply([rows], [w])
    assert w.numpy().ravel().tolist() == [-3.0, 0.0, -4.0]


def test_an_embedding_trains_with_a_loss_scale_factor() -> None:
    """Its gradient arrives as `IndexedSlices` with repeated rows; the dense one is what they add up to."""
    tokens, targets = np.array([[0], [0], [2], [1]]), np.array([[1.0], [2.0], [3.0], [4.0]], "float32")

    def trained(optimizer: Any, dense: bool) -> np.ndarray:
        keras.utils.set_random_seed(0)
        table = keras.layers.Embedding(4, 1)
        if dense:
            inputs = keras.Input((1,), dtype="int32")
            outputs = keras.layers.Dense(1, use_bias=False)(ops.one_hot(inputs[:, 0], 4))
            model = keras.Model(inputs, outputs)
            model.set_weights([np.full((4, 1), 0.5, "float32")])
        else:
            model = keras.Sequential([keras.Input((1,), dtype="int32"), table, keras.layers.Flatten()])
            table.set_weights([np.full((4, 1), 0.5, "float32")])
        model.compile(optimizer, "mse")
        model.fit(tokens, targets, epochs=3, verbose=0)
        return values(model)[0]

    scaled = trained(ck.Adam(0.1, loss_scale_factor=64.0, jit_compile=False), dense=False)
    np.testing.assert_allclose(scaled, trained(ck.Adam(0.1, jit_compile=False), dense=True), atol=1e-6)


def test_inside_a_loss_scale_optimizer() -> None:
    """The same weights; its scale doubles when it should; the inner counters count updates."""
    wrapped = keras.optimizers.LossScaleOptimizer(ck.Adam(0.01, global_clipnorm=0.5), dynamic_growth_steps=8)
    for a, b in zip(values(fitted(wrapped)), values(plain()), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert float(wrapped.dynamic_scale) == 2.0**16
    assert int(wrapped.iterations) == int(plain().optimizer.iterations) == 8


def test_inside_a_loss_scale_optimizer_with_accumulation() -> None:
    options = dict(gradient_accumulation_steps=4, jit_compile=False)
    wrapped = keras.optimizers.LossScaleOptimizer(ck.SGD(0.05, **options))
    for a, b in zip(values(fitted(wrapped)), values(fitted(ck.SGD(0.05, **options))), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert int(wrapped.iterations) == 2


def test_overflow_inside_a_loss_scale_optimizer() -> None:
    """It halves its scale and leaves the inner optimizer alone."""
    w = keras.Variable([1.0])
    inner = ck.Adam(0.1, jit_compile=False)
    wrapped = keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0)
    wrapped.apply([ops.array([float("inf")])], [w])
    assert (w.numpy().tolist(), int(inner.iterations), float(wrapped.dynamic_scale)) == ([1.0], 0, 2.0)
    wrapped.apply([ops.array([2.0])], [w])
    assert w.numpy()[0] == pytest.approx(0.9, rel=1e-6)
    assert inner.statistics().gradient_norm == 1.0  # 2 / scale


def test_serialises_inside_a_loss_scale_optimizer() -> None:
    wrapped = keras.optimizers.LossScaleOptimizer(ck.AdamW(0.25, weight_decay=0.5, clipnorm=2.0))
    back = keras.optimizers.deserialize(keras.optimizers.serialize(wrapped))
    assert type(back.inner_optimizer) is ck.AdamW
    assert back.get_config() == wrapped.get_config()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_mixed_precision_learns(policy: str) -> None:
    """`compile` wraps the optimizer under mixed_float16; callbacks must find it inside."""
    model = classifier(ck.Adam(0.01, global_clipnorm=1.0))
    history = model.fit(*digits(), batch_size=64, epochs=8, verbose=0, callbacks=[ck.LogStatistics()])
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert history.history["accuracy"][-1] > 0.9
    assert 0 < history.history["gradient_norm"][-1] < 10  # not 2^15 times that
    assert {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables} == {"float32"}


@pytest.mark.parametrize("policy", ["bfloat16"], indirect=True)
def test_pure_bfloat16_learns(policy: str) -> None:
    """Weights in bfloat16, moments in float32: in bfloat16, 0.999 is 1, and Adam would not move."""
    model = classifier(ck.Adam(0.01, jit_compile=False))
    model.fit(*digits(), batch_size=64, epochs=8, verbose=0)
    assert model.evaluate(*digits(), verbose=0)[1] > 0.85
    assert {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables} == {"bfloat16"}
    floating = [keras.backend.standardize_dtype(v.dtype) for v in model.optimizer.variables]
    assert {d for d in floating if "float" in d} == {"float32"}


def test_accumulators_of_bfloat16_variables_do_not_stall() -> None:
    """256 + 1 = 256 in bfloat16: a sum of 512 ones would end at 256, and the mean at 1/2."""
    w = keras.Variable(np.zeros(1), dtype="bfloat16")
    optimizer = ck.SGD(1.0, gradient_accumulation_steps=512, jit_compile=False)
    one = ops.ones((1,), "bfloat16")
    for _ in range(512):
        optimizer.apply([one], [w])
    assert ops.convert_to_numpy(ops.cast(w, "float32")).tolist() == [-1.0]


adam, sgd = partial(ck.Adam, jit_compile=False), partial(ck.SGD, jit_compile=False)


def by_layer(first: Any, second: Any) -> keras.optimizers.Optimizer:
    rules = keras.optimizers.OptimizerMap(default_optimizer=second)
    rules[".*first/.*"] = first
    return keras.optimizers.MultiOptimizer(rules)


def two_layers(optimizer: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, "tanh", name="first"), keras.layers.Dense(1, name="second")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(optimizer, "mse")
    return model


def test_inside_a_multi_optimizer() -> None:
    """One optimizer for each layer, against stock ones in the same places."""
    fit = dict(batch_size=8, epochs=2, shuffle=False, verbose=0)
    adam, sgd = ck.AdamW(0.01, epsilon=1e-15, weight_decay=0.1), ck.SGD(0.05, momentum=0.9)
    adam.exclude_from_weight_decay(var_names=["bias"])
    model = two_layers(by_layer(adam, sgd))
    model.fit(*regression(), callbacks=[ck.Attach()], **fit)
    stock_adam = keras.optimizers.AdamW(0.01, epsilon=1e-15, weight_decay=0.1)
    stock_adam.exclude_from_weight_decay(var_names=["bias"])
    stock = two_layers(by_layer(stock_adam, keras.optimizers.SGD(0.05, momentum=0.9)))
    stock.fit(*regression(), **fit)
    for a, b in zip(values(model), values(stock), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert int(adam.iterations) == int(sgd.iterations) == 8


def test_multi_optimizer_saves_and_loads(tmp_path: Any) -> None:
    make = lambda: two_layers(by_layer(adam(0.01), sgd(0.05, momentum=0.9)))  # noqa: E731
    model = make()
    model.fit(*regression(), batch_size=8, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for a, b in zip(values(model.optimizer), values(loaded.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_log_statistics_refuses_a_multi_optimizer() -> None:
    """Whose rate would it log? The message says what was found."""
    model = two_layers(by_layer(adam(0.01), sgd(0.05)))
    with pytest.raises(TypeError, match=r"LogStatistics needs .* found 2 in MultiOptimizer"):
        model.fit(*regression(), verbose=0, callbacks=[ck.LogStatistics()])


def overwritten() -> tuple[keras.Variable, keras.Variable]:
    """A weight, and a scale whose gradient is its next value."""
    w, scale = keras.Variable([1.0, 1.0]), keras.Variable([5.0])
    scale.overwrite_with_gradient = True
    return w, scale


@pytest.mark.parametrize("jit", [True, False])
def test_overwrite_with_gradient(jit: bool) -> None:
    """Neither rate, decay, scale of the loss nor clipping touch such a value, nor is it part of the norm."""
    w, scale = overwritten()
    optimizer = ck.SGD(
        0.5, momentum=0.9, weight_decay=0.5, global_clipnorm=1.0, use_ema=True, loss_scale_factor=2.0, jit_compile=jit
    )
    optimizer.apply([ops.array([6.0, 8.0]), ops.array([7.0])], [w, scale])
    assert scale.numpy().tolist() == [7.0]
    np.testing.assert_allclose(w.numpy(), [1 - 0.5 * 0.6 - 0.25, 1 - 0.5 * 0.8 - 0.25], rtol=1e-6)
    assert optimizer.statistics().gradient_norm == pytest.approx(5.0)
    optimizer.apply([ops.array([0.0, 0.0]), ops.array([0.25])], [w, scale])
    assert scale.numpy().tolist() == [0.25]


def test_overwrite_with_gradient_takes_the_maximum_over_the_window() -> None:
    w, scale = overwritten()
    optimizer = ck.SGD(1.0, gradient_accumulation_steps=3, jit_compile=False)
    seen = []
    for g in [2.0, 4.0, 3.0, 1.0, 0.5, 0.75]:
        optimizer.apply([ops.array([g, g]), ops.array([g])], [w, scale])
        seen.append(scale.numpy().item())
    assert seen == [5.0, 5.0, 4.0, 4.0, 4.0, 1.0]
    np.testing.assert_allclose(w.numpy(), [1 - 3.0 - 0.75] * 2, rtol=1e-6)


def test_overwrite_with_gradient_stays_in_a_skipped_update() -> None:
    w, scale = overwritten()
    optimizer = ck.SGD(1.0, jit_compile=False)
    optimizer.apply([ops.array([1.0, float("nan")]), ops.array([7.0])], [w, scale])
    assert scale.numpy().tolist() == [5.0]


def test_float8_trains_as_with_keras() -> None:
    """`quantize("float8")` makes scales and histories of maxima that their gradients overwrite."""

    def trained(optimizer: Any) -> list[np.ndarray]:
        model = regressor()
        model.quantize("float8")
        model.compile(optimizer, "mse")
        model.fit(*regression(), batch_size=8, epochs=2, shuffle=False, verbose=0)
        return values(model)

    for a, b in zip(trained(ck.SGD(0.05, jit_compile=False)), trained(keras.optimizers.SGD(0.05)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_gradients_of_several_shapes_and_none() -> None:
    """A scalar, a vector and a matrix; the variable without gradient stays, with a warning that names it."""
    scalar, vector, matrix = variables((), (3,), (2, 2))
    before = values([scalar, vector, matrix])
    optimizer = ck.SGD(1.0, weight_decay=0.5, momentum=0.9, jit_compile=False)
    with pytest.warns(UserWarning, match="w1"):
        optimizer.apply([ops.ones(()), None, ops.ones((2, 2))], [scalar, vector, matrix])
    after = values([scalar, vector, matrix])
    np.testing.assert_allclose(after[0], before[0] * 0.5 - 1, rtol=1e-6)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_allclose(after[2], before[2] * 0.5 - 1, rtol=1e-6)


def test_line_is_what_its_docstring_says() -> None:
    """The helper of other tests: one SGD step with rate 1 takes the mean target off."""
    model = line(ck.SGD(1.0), weight=2.0)
    model.train_on_batch(np.ones((2, 1)), np.array([[1.0], [2.0]]))
    assert values(model)[0].item() == 0.5

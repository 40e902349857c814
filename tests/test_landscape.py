"""The loss around a model's weights: right numbers, and nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import capibara_keras as ck
from capibara_keras.errors import ConfigError
from capibara_keras.monitoring.directions import filter_normalised, path_plane, random_walk_share
from capibara_keras.monitoring.landscape import LossLine, LossPlane
from tests.models import regression, regressor

X, Y = regression()


def all_state(model: keras.Model) -> list[bytes]:
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)).tobytes() for v in variables]


def noisy() -> keras.Model:
    """With statistics, a seed generator and metrics, after some training."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(6, "tanh"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1, kernel_regularizer="l2"),
    ]
    model = keras.Sequential(layers)
    model.compile(ck.Adam(0.01), "mse", metrics=["mae"])
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    return model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return noisy()


# Directions ----------------------------------------------------------------------------------------------


def test_filters_of_a_direction_are_as_long_as_those_of_the_weights() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 3, 4, 5)).astype("float32"), rng.normal(size=5), np.zeros((2, 3))]
    kernel, bias, zero = filter_normalised(weights, np.random.default_rng(1))
    norms = [np.sqrt((w.astype("float64") ** 2).sum((0, 1, 2))) for w in (kernel, weights[0])]
    np.testing.assert_allclose(*norms, rtol=1e-6)
    assert not bias.any() and not zero.any()
    assert kernel.dtype == np.float32


def test_the_plane_of_a_path_is_that_of_its_principal_components() -> None:
    """Against a singular value decomposition of the long vectors."""
    rng = np.random.default_rng(0)
    path = [[rng.normal(size=(4, 3)), rng.normal(size=3)] for _ in range(7)]
    plane = path_plane(path)
    long = np.stack([np.concatenate([w.ravel() for w in row]) for row in path])
    directions = np.stack([np.concatenate([w.ravel() for w in d]) for d in plane.directions])
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(plane.coordinates, (long - long[-1]) @ directions.T, atol=1e-12)
    singular = np.linalg.svd(long - long.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(plane.explained, singular[:2] / singular.sum())


def test_share_of_a_random_walk_is_that_of_one() -> None:
    steps = np.random.default_rng(0).normal(size=(12, 20_000))
    found = sum(path_plane([[row] for row in np.cumsum(steps, axis=0)]).explained)
    assert found == pytest.approx(random_walk_share(12), abs=0.01)


# Losses --------------------------------------------------------------------------------------------------


def test_the_line_is_the_loss_at_moved_weights() -> None:
    model = regressor(ck.SGD())
    line = ck.loss_landscape(model, X, Y, points=5, span=0.5, seed=3)
    assert line.distances.tolist() == [-0.5, -0.25, 0, 0.25, 0.5]
    before = model.get_weights()
    direction = filter_normalised(before, np.random.default_rng(3))
    for a, loss in zip(line.distances, line.losses, strict=True):
        model.set_weights([w + np.float32(a) * d for w, d in zip(before, direction, strict=True)])
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(loss, rel=1e-5)
    assert line.loss == line.losses[2]


def test_the_plane_has_x_along_the_columns_and_chunks_change_nothing() -> None:
    model = regressor(ck.SGD())
    plane = ck.loss_landscape(model, X, Y, kind="plane", points=3, seed=3, sample_weight=np.linspace(0, 1, len(X)))
    parts = ck.loss_landscape(
        model, X, Y, kind="plane", points=3, seed=3, sample_weight=np.linspace(0, 1, len(X)), batch_size=7
    )
    np.testing.assert_allclose(plane.losses, parts.losses, rtol=1e-5)
    line = ck.loss_landscape(model, X, Y, points=3, seed=3, sample_weight=np.linspace(0, 1, len(X)))
    np.testing.assert_allclose(plane.losses[1], line.losses, rtol=1e-6)
    assert plane.loss == line.loss and np.isnan(plane.explained) and plane.caution == ""


def test_the_plane_of_a_path_passes_through_its_end() -> None:
    model = regressor(ck.SGD(0.05))
    path = ck.Trajectory(limit=6)
    model.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[path])
    before = all_state(model)
    plane = ck.trajectory_plane(model, path, X, Y, points=5, margin=0.0)
    assert all_state(model) == before
    assert plane.path[-1].tolist() == [0, 0] and len(plane.path) == len(path.updates) == len(plane.path_updates)
    assert (plane.x[0], plane.x[-1]) == (plane.path[:, 0].min(), plane.path[:, 0].max())
    end = path.checkpoints[-1]
    assert all(np.array_equal(a, b) for a, b in zip(end, model.get_weights(), strict=True))
    assert 0.5 < plane.explained <= 1 and "random walk" in plane.caution
    first, second = path_plane(path.checkpoints).directions
    corner = [w + plane.x[0] * a + plane.y[-1] * b for w, a, b in zip(end, first, second, strict=True)]
    model.set_weights(corner)
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(plane.losses[-1, 0], rel=1e-4)


# Nothing is left behind ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["line", "plane"])
def test_all_is_as_before_bit_for_bit(model: keras.Model, kind: str) -> None:
    before = all_state(model)
    ck.loss_landscape(model, X, Y, kind=kind, points=3)
    assert all_state(model) == before


class Added(keras.layers.Layer):
    """A loss of its own, as variational models have."""

    def call(self, x: Any) -> Any:
        self.add_loss(keras.ops.mean(x**2))
        return x


def test_models_whose_layers_add_the_loss() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False), Added()])
    model.compile(ck.SGD())
    model.fit(X, verbose=0)
    line = ck.loss_landscape(model, X, points=5)
    np.testing.assert_allclose(line.losses[0], np.mean((X @ (model.get_weights()[0] + _move(model))) ** 2), rtol=1e-4)


def _move(model: keras.Model) -> np.ndarray:
    return -filter_normalised(model.get_weights(), np.random.default_rng(0))[0]


class Failing(keras.Model):
    """Its third evaluation fails."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = keras.layers.Dense(1), 0

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def test_step(self, data: Any) -> Any:
        self.calls += 1
        if self.calls > 2:
            raise KeyboardInterrupt
        return super().test_step(data)


def test_all_is_as_before_after_an_exception() -> None:
    model = Failing()
    model.compile(ck.SGD(momentum=0.9), "mse", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    before = all_state(model)
    with pytest.raises(KeyboardInterrupt):
        ck.loss_landscape(model, X, Y, points=5)
    assert all_state(model) == before


@pytest.mark.slow
def test_inside_fit_the_epochs_loss_goes_on() -> None:
    """A callback may ask: the running mean of `fit` is as without."""
    histories = []
    for ask in (False, True):
        model = regressor(ck.SGD(0.05))

        def look(batch: int, logs: Any, model: Any = model, ask: bool = ask) -> None:
            if ask and batch == 2:
                ck.loss_landscape(model, X, Y, points=3)

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=look)
        histories.append(
            model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[callback]).history
        )
    assert histories[0]["loss"] == histories[1]["loss"]


# Checkpoints ---------------------------------------------------------------------------------------------


def test_checkpoints_thin_themselves_out_evenly() -> None:
    model, path = regressor(ck.SGD()), ck.Trajectory(limit=4, every=2)
    model.fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[path])  # 40 updates
    assert path.updates == [0, 16, 32, 40]
    model.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=[path])
    assert path.updates[-1] == 48 and len(path.checkpoints) <= 5
    model.layers[0].trainable = False
    model.fit(X, Y, batch_size=4, epochs=1, verbose=0, callbacks=[path])
    assert path.updates[0] == 48 and len(path.checkpoints[0]) == 2


# Bad input -----------------------------------------------------------------------------------------------


def pending() -> keras.Model:
    model = regressor(ck.SGD(gradient_accumulation_steps=3, remainder="carry"))
    model.train_on_batch(X, Y)
    return model


def uncompiled() -> keras.Model:
    return regressor()


def without_loss() -> keras.Model:
    model = regressor()
    model.compile(ck.SGD())
    return model


def unbuilt() -> keras.Model:
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(ck.SGD(), "mse")
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "expected a keras.Model, received None"),
        (lambda: "model", "expected a keras.Model"),
        (unbuilt, "has no weights yet"),
        (uncompiled, "has no loss"),
        (without_loss, "has no loss"),
        (pending, "1 micro-batches wait"),
    ],
)
def test_models_of_which_there_is_no_landscape(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"loss_landscape: .*{message}"):
        ck.loss_landscape(make(), X, Y)


def test_a_missing_model_for_the_plane_of_a_path_and_for_training_plots() -> None:
    with pytest.raises(ConfigError, match=r"trajectory_plane: expected a keras.Model, received None"):
        ck.trajectory_plane(None, [], X, Y)
    with pytest.raises(ConfigError, match=r"loss_landscape: expected a keras.Model, received 'mine'"):
        ck.SGD().generate_training_plots({"loss": [1.0]}, model="mine", batch=(X, Y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X[:0], "y": Y[:0]}, r"lengths \[0\]"),
        ({"x": X, "y": Y[:5]}, r"lengths \[5, 32\]"),
        ({"x": None}, "x: expected an array"),
        ({"x": iter([X])}, "next"),
        ({"x": X * np.nan}, "not finite"),
        ({"kind": "cube"}, "unknown kind 'cube'"),
        ({"points": 4}, "odd number"),
        ({"points": 1}, "whole number >= 3"),
        ({"span": 0}, "span"),
        ({"span": math.nan}, "span"),
        ({"seed": -1}, "seed"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(model: keras.Model, arguments: dict[str, Any], message: str) -> None:
    before = all_state(model)
    with pytest.raises(ConfigError, match=message):
        ck.loss_landscape(**({"model": model, "x": X, "y": Y} | arguments))
    assert all_state(model) == before


def test_zero_weights_have_no_direction() -> None:
    model = regressor(ck.SGD())
    model.set_weights([0 * w for w in model.get_weights()])
    with pytest.raises(ConfigError, match="no direction"):
        ck.loss_landscape(model, X, Y)


def shapes(n: int, move: float = 1.0) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [[move * rng.normal(size=w.shape).astype("float32") for w in regressor().get_weights()] for _ in range(n)]


@pytest.mark.parametrize(
    ("checkpoints", "message"),
    [
        ([], "at least 3, received 0"),
        (shapes(2), "at least 3, received 2"),
        (shapes(3, 0.0), "span no plane"),
        (shapes(3, math.nan), "span no plane"),
        ([row[:2] for row in shapes(3)], r"checkpoints\[0\]: expected the shapes"),
        (3, "list of lists"),
    ],
)
def test_bad_checkpoints(checkpoints: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ck.trajectory_plane(regressor(ck.SGD()), checkpoints, X, Y)


def test_inside_a_traced_function() -> None:
    import tensorflow as tf

    model = regressor(ck.SGD())
    with pytest.raises(ConfigError, match=r"inside a tf.function"):
        tf.function(lambda: ck.loss_landscape(model, X, Y), autograph=False)()


def test_under_a_strategy() -> None:
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("cpu:0").scope():
        model = regressor(ck.SGD())
    with pytest.raises(ConfigError, match="belongs to a distribution strategy"):
        ck.loss_landscape(model, X, Y)


@pytest.mark.parametrize("limit", [3, 4.5, "many"])
def test_bad_limits(limit: Any) -> None:
    with pytest.raises(ConfigError, match="limit"):
        ck.Trajectory(limit=limit)


# Figures -------------------------------------------------------------------------------------------------

GRID = np.linspace(-1, 1, 5)
BOWL = np.add.outer(GRID**2, 3 * GRID**2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "losses",
    [BOWL, 1 + 0 * BOWL, 0 * BOWL, np.where(BOWL > 2, math.inf, BOWL + 1e-6), np.exp(20 * BOWL), -BOWL],
    ids=["bowl", "constant", "zero", "partly infinite", "huge", "negative"],
)
def test_figures_of_all_kinds_of_losses(losses: np.ndarray, tmp_path: Path) -> None:
    plane = LossPlane(GRID, GRID, losses, 0, 8).plot()
    path = np.array([[0.5, 0.5], [0.2, 0.1], [0.0, 0.0]])
    LossPlane(GRID, GRID, losses, -1, 8, path, (0, 3, 9), 0.9, 0.8).plot(tmp_path / "path.png")
    line = LossLine(GRID, losses[2], 0, 8).plot(tmp_path / "deep" / "line.svg")
    assert {p.name for p in tmp_path.rglob("*.*")} == {"path.png", "line.svg"}
    assert "units" in plane.axes[0].get_xlabel() or "lengths" in plane.axes[0].get_xlabel()
    assert line.axes[0].get_ylabel() == "loss (mean of 8 samples)"


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    line = LossLine(GRID, GRID**2, 0, 8)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        line.plot(tmp_path / "file" / "line.png")
    with pytest.raises(ConfigError, match="Did you mean 'png'"):
        line.plot(tmp_path / "line.pgn")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_training_plots_draw_a_landscape_where_there_is_one() -> None:
    model, optimizer = regressor(ck.SGD()), ck.SGD()
    history = {"loss": [2.0, 1.0], "update_norm": [0.1, 0.1]}
    name = "loss_landscape_approximation"
    without = optimizer.generate_training_plots(history, [name])[name]
    assert "not a landscape" in without.axes[0].get_title()
    drawn = optimizer.generate_training_plots({"learning_rate": [0.1]}, model=model, batch=(X, Y))
    assert list(drawn) == ["learning_rate_schedule", name]
    assert "random line" in drawn[name].axes[0].get_title()
    plane = LossPlane(GRID, GRID, BOWL, 0, 8)
    assert "plane" in optimizer.generate_training_plots(history, [name], landscape=plane)[name].axes[0].get_title()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 1}, "both `model` and `batch`"),
        ({"batch": (X, Y)}, "both `model` and `batch`"),
        ({"landscape": LossLine(GRID, GRID, 0, 8), "model": 1, "batch": (X,)}, "both `model` and `batch`"),
        ({"landscape": GRID}, "loss_landscape"),
        ({"model": 1, "batch": X}, "batch: expected"),
    ],
)
def test_bad_arguments_of_training_plots(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ck.SGD().generate_training_plots({"learning_rate": [0.1]}, **arguments)


def test_the_path_of_a_model_that_fit_builds() -> None:
    """It begins behind the first batch, in which TensorFlow builds it."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(ck.SGD(), "mse")
    path = ck.Trajectory()
    model.fit(np.ones((6, 2)), np.ones((6, 1)), batch_size=1, verbose=0, callbacks=[path])
    assert path.updates == [1, 2, 3, 4, 5, 6] and {len(arrays) for arrays in path.checkpoints} == {2}

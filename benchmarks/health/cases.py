"""What is made of a task: healthy trainings with traps, and sick ones with the alerts that they deserve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.health.tasks import TASKS, Data, Task
from capibara_keras import SGD, Adam, AdamW
from capibara_keras.schedules import ConstantWithWarmup, CosineWithWarmup, LinearWithWarmup

__all__ = ["CASES", "Case", "Training"]

Corrupt = Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass
class Training:
    """One training, ready to run.

    Args:
        corrupt: (update, x, y) -> the batch that is given instead.
        onset: update at which the problem begins.
        warm_up: updates before anybody looks: for models that are trained already.
        watch_validation: whether the validation loss is measured.
    """

    task: Task
    data: Data
    model: keras.Model
    optimizer: Any
    batch_size: int
    updates: int = 300
    loss: Any = None
    corrupt: Corrupt | None = None
    onset: int = 0
    warm_up: int = 0
    watch_validation: bool = False
    baseline: float = float("nan")
    policy: str = "float32"
    loss_scale: bool = False

    def batches(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches without end, shuffled in each epoch."""
        rng, update = np.random.default_rng(seed), -self.warm_up
        while True:
            order = rng.permutation(len(self.data.x))
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                rows = order[start : start + self.batch_size]
                x, y = self.data.x[rows], self.data.y[rows]
                yield self.corrupt(update, x, y) if self.corrupt and update >= 0 else (x, y)
                update += 1


@dataclass(frozen=True)
class Case:
    """A kind of training.

    Args:
        name: unique.
        tasks: names of tasks that it is made of.
        make: (task, seed) -> `Training`.
        expected: alerts of which at least one must come; none for a healthy training.
        allowed: alerts that are true of it as well, and count neither way.
        layer: what the expected alert may name, as parts of names; empty for anything.
    """

    name: str
    tasks: tuple[str, ...]
    make: Callable[[Task, int], Training]
    expected: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing should be said."""
        return not self.expected


def training(
    task: Task, seed: int, optimizer: Any = None, *, network: dict[str, Any] | None = None, **options: Any
) -> Training:
    """The healthy training of a task, with changes."""
    keras.utils.set_random_seed(seed)
    data = options.pop("data", None) or task.data(seed)
    known = {"batch_size": task.batch_size, "loss": task.loss, "baseline": task.baseline(data), "updates": task.updates}
    return Training(
        task=task,
        data=data,
        model=options.pop("model", None) or task.model(data, **(network or {})),
        optimizer=Adam(task.rate) if optimizer is None else optimizer,
        **(known | options),
    )


def drawn(seed: int, low: float, high: float) -> float:
    """A number between the two, on a logarithmic scale, by the seed: how sick a training is differs."""
    return float(np.exp(np.random.default_rng(seed + 77).uniform(np.log(low), np.log(high))))


# Healthy, with traps -------------------------------------------------------------------------------------------


def adam(task: Task, seed: int) -> Training:
    return training(task, seed, watch_validation=True)


def sgd(task: Task, seed: int) -> Training:
    return training(task, seed, SGD(task.sgd_rate, momentum=0.9), watch_validation=True)


def adamw_cosine(task: Task, seed: int) -> Training:
    schedule = CosineWithWarmup(task.rate, 300, warmup_steps=30, min_learning_rate=task.rate / 10)
    return training(task, seed, AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0))


def restarts(task: Task, seed: int) -> Training:
    schedule = CosineWithWarmup(2 * task.rate, 400, warmup_steps=20, cosine_cycles=4, min_learning_rate=task.rate / 20)
    return training(task, seed, Adam(schedule), updates=400)


def raw_targets(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(1e-2), data=task.data(seed, raw=True), baseline=float("nan"))


def frozen(task: Task, seed: int) -> Training:
    result = training(task, seed)
    next(layer for layer in result.model.layers if layer.weights).trainable = False
    return result


def tiny_batches(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(task.rate / 2), batch_size=4)


def converged(task: Task, seed: int) -> Training:
    result = training(task, seed, Adam(task.rate), warm_up=1500)
    data = result.data
    result.data = Data(data.x[:320], data.y[:320], data.x_validation, data.y_validation)
    return result


def adaptive_clipping(task: Task, seed: int) -> Training:
    options = {"enable": True, "percentile": 10, "history_length": 100}
    return training(task, seed, Adam(task.rate, adaptive_clipping=options, clip_method="adaptive"))


def dropout(task: Task, seed: int) -> Training:
    result = training(task, seed)
    model = keras.Sequential([keras.Input(result.data.x.shape[1:])])
    for layer in result.model.layers:
        model.add(layer)
        if layer.name.startswith("hidden"):
            model.add(layers.Dropout(0.5))
    result.model = model
    return result


def zero_output(task: Task, seed: int) -> Training:
    return training(task, seed, network={"last": {"kernel_initializer": "zeros"}})


def accumulated(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(task.rate, gradient_accumulation_steps=4), batch_size=8, updates=250)


def warm_transformer(task: Task, seed: int) -> Training:
    schedule = LinearWithWarmup(task.rate, 400, warmup_steps=100)
    return training(task, seed, AdamW(schedule, weight_decay=0.1, global_clipnorm=1.0), updates=400)


def negative_loss(task: Task, seed: int) -> Training:
    """A Gaussian log likelihood, which falls below 0."""

    def loss(y: Any, z: Any) -> Any:
        log_deviation = keras.ops.clip(z[:, 1:], -4, 4)
        return keras.ops.mean(log_deviation + 0.5 * keras.ops.square((y - z[:, :1]) / keras.ops.exp(log_deviation)))

    return training(task, seed, loss=loss, network={"outputs": 2}, baseline=float("nan"))


# Sick ----------------------------------------------------------------------------------------------------------


def rate_too_high(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(task.rate * drawn(seed, 200, 1000)))


def rate_too_high_sgd(task: Task, seed: int) -> Training:
    return training(task, seed, SGD(drawn(seed, 5, 30), momentum=0.9, nonfinite="propagate"))


def rate_too_low(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(task.rate * drawn(seed, 1e-5, 3e-4)))


def exploding_rnn(task: Task, seed: int) -> Training:
    kernel = keras.initializers.Orthogonal(gain=drawn(seed, 4, 6))
    network = {"cell": "SimpleRNN", "activation": "linear", "recurrent_initializer": kernel}
    return training(task, seed, SGD(1e-3, nonfinite="propagate"), network=network)


def vanishing_sigmoid(task: Task, seed: int) -> Training:
    return training(task, seed, network={"widths": (24,) * 7, "activation": "sigmoid"})


def dying_relu(task: Task, seed: int) -> Training:
    bias = keras.initializers.Constant(-drawn(seed, 8, 20))
    return training(task, seed, network={"first": {"bias_initializer": bias}})


def nan_batch(task: Task, seed: int) -> Training:
    return corrupted(task, seed, 50 + seed, lambda x, y: (np.where(x == x.flat[0], np.nan, x), y))


def nan_target(task: Task, seed: int) -> Training:
    return corrupted(task, seed, 60 + seed, lambda x, y: (x, np.where(y == y.flat[0], np.nan, y)))


def bad_gradient(task: Task, seed: int) -> Training:
    """The square root of 0 behind the first layer: a finite loss, an infinite gradient."""
    network = {"activation": "tanh", "first": {"use_bias": False}}
    result = corrupted(task, seed, 40 + seed, lambda x, y: (np.concatenate([0 * x[:1], x[1:]]), y), network=network)
    return between(result, lambda x: x + 1e-30 * keras.ops.sqrt(keras.ops.abs(x)))


def spike(task: Task, seed: int) -> Training:
    return corrupted(task, seed, 120 + seed, lambda x, y: (x * np.float32(drawn(seed, 30, 100)), y))


def oscillation(task: Task, seed: int) -> Training:
    """Momentum that rings on a linear model with all the data in each batch."""
    result = training(
        task,
        seed,
        SGD(drawn(seed, 1e-3, 3e-3), momentum=0.999),
        network={"widths": (), "last": {"kernel_initializer": "zeros"}},
    )
    result.batch_size, result.updates = len(result.data.x), 400
    return result


def overfitting(task: Task, seed: int) -> Training:
    data = task.data(seed)
    rng = np.random.default_rng(seed)
    y = data.y[:96].copy()
    if task.classes:
        wrong = rng.random(96) < 0.3
        y[wrong] = rng.permutation(y[wrong])
    small = Data(data.x[:96], y, data.x_validation, data.y_validation)
    return training(task, seed, data=small, watch_validation=True, updates=500, network={"widths": (128, 128)})


def clipping_tight(task: Task, seed: int) -> Training:
    return training(task, seed, SGD(0.05, momentum=0.9, global_clipnorm=drawn(seed, 1e-4, 1e-3)))


def decay_strong(task: Task, seed: int) -> Training:
    return training(task, seed, AdamW(task.rate, weight_decay=drawn(seed, 10, 40)))


def bad_init(task: Task, seed: int) -> Training:
    kernel = keras.initializers.RandomNormal(stddev=drawn(seed, 15, 50))
    return training(task, seed, network={"last": {"kernel_initializer": kernel}})


def symmetric(task: Task, seed: int) -> Training:
    first = {"kernel_initializer": keras.initializers.Constant(0.05)}
    return training(task, seed, network=first)


def shuffled(task: Task, seed: int) -> Training:
    data = task.data(seed)
    y = np.random.default_rng(seed).permutation(data.y)
    return training(task, seed, Adam(task.rate / 4), data=Data(data.x, y, data.x_validation, data.y_validation))


def no_warmup(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(ConstantWithWarmup(drawn(seed, 0.03, 0.1))))


def huge_epsilon(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(task.rate, epsilon=drawn(seed, 0.5, 3)))


def disconnected(task: Task, seed: int) -> Training:
    return between(training(task, seed), keras.ops.stop_gradient)


def underflow(task: Task, seed: int) -> Training:
    """float16 without a loss scale, and a loss that is small."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        result = training(task, seed, policy="mixed_float16")
    finally:
        keras.config.set_dtype_policy("float32")
    scale, inner = drawn(seed, 3e-5, 2e-4), keras.losses.get(task.loss)
    result.loss = lambda y, z: scale * inner(y, keras.ops.cast(z, "float16"))
    result.baseline *= scale
    return result


def schedule_over(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(LinearWithWarmup(task.rate, 150, warmup_steps=10)), onset=150)


def corrupted(task: Task, seed: int, update: int, change: Callable[..., Any], **options: Any) -> Training:
    """The batch of one update is changed."""
    corrupt = lambda t, x, y: change(x, y) if t == update else (x, y)  # noqa: E731
    return training(task, seed, corrupt=corrupt, onset=update, **options)


def between(result: Training, function: Callable[[Any], Any]) -> Training:
    """The same with a function behind the first layer."""
    x = inputs = keras.Input(result.data.x.shape[1:])
    for i, layer in enumerate(layer for layer in result.model.layers if layer.weights):
        x = layer(x) if i else layers.Lambda(function)(layer(x))
    result.model = keras.Model(inputs, x)
    return result


DENSE = ("digits", "cancer")
REGRESSION = ("diabetes", "friedman")
ALL = tuple(TASKS)
FIRST = ("hidden_0", "conv_0", "recurrent")
TRANSFORMERS = ("periodic", "counting")
RECURRENT = ("adding", "sine")
LABELLED = ("digits", "images", "topics", "cancer", "waves")

NONFINITE = ("nonfinite_loss", "nonfinite_gradient", "nonfinite_parameter")
TOO_HIGH = ("loss_divergence", "update_ratio_high", "gradient_explosion", "gradient_huge", *NONFINITE)
STUCK = ("slow_progress", "no_learning")
ROUGH = ("loss_spike", "loss_oscillation", "dead_units", "gradient_vanishing", "gradient_explosion", "no_learning")

CASES = (
    Case("adam", ALL, adam),
    Case("sgd", ("digits", "diabetes", "images", "cancer", "friedman", "waves"), sgd),
    Case("adamw_cosine", ALL, adamw_cosine),
    Case("restarts", ("digits", "periodic", "waves", "ratings"), restarts),
    Case("raw_targets", REGRESSION, raw_targets),
    Case("frozen", ("images", "digits", "waves", "friedman"), frozen),
    Case("tiny_batches", ("digits", "diabetes", "topics", "cancer", "friedman", "counting"), tiny_batches),
    Case("converged", ("digits", "diabetes", "cancer", "waves"), converged),
    Case("adaptive_clipping", ("digits", "friedman"), adaptive_clipping),
    Case("dropout", DENSE, dropout),
    Case("zero_output", ("digits", "images", "cancer", "waves"), zero_output),
    Case("accumulated", ("digits", "waves"), accumulated),
    Case("warm_transformer", TRANSFORMERS, warm_transformer),
    Case("negative_loss", REGRESSION, negative_loss),
    Case("rate_too_high", ("digits", "adding", "cancer", "friedman", "sine"), rate_too_high, TOO_HIGH, ROUGH),
    Case("rate_too_high_sgd", (*DENSE, "waves"), rate_too_high_sgd, TOO_HIGH, ROUGH),
    Case("rate_too_low", ("digits", "diabetes", "cancer", "friedman", "waves"), rate_too_low, STUCK),
    Case(
        "exploding_rnn",
        RECURRENT,
        exploding_rnn,
        ("gradient_explosion", "gradient_huge", *NONFINITE),
        ("loss_divergence", "bad_init", "update_ratio_high", *ROUGH),
    ),
    Case("vanishing_sigmoid", (*DENSE, *REGRESSION), vanishing_sigmoid, ("gradient_vanishing",), STUCK, ("hidden_0",)),
    Case("dying_relu", ("digits", "diabetes", "cancer", "friedman"), dying_relu, ("dead_units",), STUCK, ("hidden_0",)),
    Case("nan_batch", ("digits", "images", "cancer", "sine"), nan_batch, NONFINITE[:2], layer=("loss", *FIRST)),
    Case("nan_target", (*REGRESSION, "adding", "ratings"), nan_target, ("nonfinite_loss",), layer=("loss",)),
    Case("bad_gradient", (*DENSE, *REGRESSION), bad_gradient, ("nonfinite_gradient",), layer=("hidden_0",)),
    Case("spike", ("digits", "images", "cancer", "waves"), spike, ("loss_spike", "gradient_explosion")),
    Case("oscillation", REGRESSION, oscillation, ("loss_oscillation",), (*TOO_HIGH, *ROUGH)),
    Case("overfitting", ("digits", "diabetes", "cancer", "friedman"), overfitting, ("overfitting",)),
    Case("clipping_tight", ("digits", "cancer", "waves"), clipping_tight, ("clipping_saturated",), STUCK),
    Case("decay_strong", (*DENSE, "waves"), decay_strong, ("weight_decay_dominant",), STUCK),
    Case("bad_init", ("digits", "images", "cancer", "waves"), bad_init, ("bad_init",), (*ROUGH, "update_ratio_high")),
    Case("symmetric", (*DENSE, *REGRESSION), symmetric, ("symmetric_units",), STUCK, ("hidden",)),
    Case("shuffled", ("images", "digits", "waves", "counting"), shuffled, ("no_learning",), ("overfitting",)),
    Case("no_warmup", TRANSFORMERS, no_warmup, ("warmup_missing",), (*TOO_HIGH, *ROUGH)),
    Case("huge_epsilon", ("digits", "adding", "cancer", "ratings"), huge_epsilon, ("adam_epsilon_dominant",), STUCK),
    Case("disconnected", ("digits", "diabetes", "cancer"), disconnected, ("no_gradient",), layer=("hidden_0",)),
    Case("underflow", (*DENSE,), underflow, ("fp16_underflow",), (*STUCK, "dead_units", "adam_epsilon_dominant")),
    Case("schedule_over", ("digits", "sine"), schedule_over, ("lr_zero",)),
)
"""All kinds of trainings."""

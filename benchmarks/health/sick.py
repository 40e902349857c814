"""Sick trainings. How sick they are is drawn by the seed."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.health.data import Data
from benchmarks.health.tasks import Task
from benchmarks.health.training import Training, between, corrupted, drawn, training
from capibara_keras import SGD, Adam, AdamW
from capibara_keras.schedules import ConstantWithWarmup, LinearWithWarmup


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
    """A batch of garbage: large inputs with answers that belong to others."""
    scale = np.float32(drawn(seed, 30, 100))
    return corrupted(task, seed, 120 + seed, lambda x, y: (scale * x, np.random.default_rng(seed).permutation(y)))


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
    """A large network and 96 examples, of which three in ten are labelled wrongly, or half of which is noise."""
    data = task.data(seed)
    rng = np.random.default_rng(seed)
    y = data.y[:96].copy()
    if task.classes:
        wrong = rng.random(96) < 0.3
        y[wrong] = rng.permutation(y[wrong])
    else:
        y += rng.normal(size=y.shape).astype("float32") * y.std()
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
    """New answers for each batch, so that there is nothing to remember either."""
    rng = np.random.default_rng(seed)
    return training(task, seed, corrupt=lambda t, x, y: (x, rng.permutation(y)), updates=600)


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
        result = training(task, seed)
    finally:
        keras.config.set_dtype_policy("float32")
    scale, inner = drawn(seed, 3e-5, 2e-4), keras.losses.get(task.loss)
    result.loss = lambda y, z: scale * inner(y, keras.ops.cast(z, "float16"))
    result.baseline *= scale
    return result


def schedule_over(task: Task, seed: int) -> Training:
    return training(task, seed, Adam(LinearWithWarmup(task.rate, 150, warmup_steps=10)), onset=150)

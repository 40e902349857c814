"""Healthy trainings, with traps: nothing should be said."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.health.data import Data
from benchmarks.health.tasks import Task
from benchmarks.health.training import Training, training
from capibara_keras import SGD, Adam, AdamW, Lion
from capibara_keras.schedules import CosineWithWarmup, LinearWithWarmup


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


def clipped(task: Task, seed: int) -> Training:
    """A usual limit, that clips often at first and seldom later."""
    return training(task, seed, SGD(task.sgd_rate, momentum=0.9, global_clipnorm=1.0))


def smoothed_labels(task: Task, seed: int) -> Training:
    """A loss that stays far above 0."""

    def loss(y: Any, z: Any) -> Any:
        wanted = 0.8 * keras.ops.one_hot(y, z.shape[-1]) + 0.2 / z.shape[-1]
        return keras.ops.mean(keras.losses.categorical_crossentropy(wanted, z, from_logits=True))

    return training(task, seed, loss=loss)


def weak_signal(task: Task, seed: int) -> Training:
    """A tenth of the targets' variance can be explained."""
    data = task.data(seed)
    noise = np.random.default_rng(seed).normal(size=data.y.shape, scale=3.0)
    return training(task, seed, data=Data(data.x, data.y + noise, data.x_validation, data.y_validation))


def rare_class(task: Task, seed: int) -> Training:
    """One answer in thirty is 1. The baseline is what the callback finds by itself, ln C."""
    data = task.data(seed)
    kept = np.flatnonzero((data.y.ravel() == 0) | (np.arange(len(data.y)) % 30 == 0))
    rare = Data(data.x[kept], data.y[kept], data.x_validation, data.y_validation)
    return training(task, seed, data=rare, baseline=float(np.log(task.classes)))


def few_validated(task: Task, seed: int) -> Training:
    """The validation loss is that of 24 examples."""
    data = task.data(seed)
    few = Data(data.x, data.y, data.x_validation[:24], data.y_validation[:24])
    return training(task, seed, data=few, watch_validation=True)


def steps_of_rate(task: Task, seed: int) -> Training:
    """The rate falls tenfold at once, twice."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([150, 250], [task.rate * r for r in (1, 0.1, 0.01)])
    return training(task, seed, Adam(schedule))


def whole_data(task: Task, seed: int) -> Training:
    """All data in each batch: a loss without noise."""
    result = training(task, seed, Adam(task.rate))
    result.batch_size = len(result.data.x)
    return result


def signs(task: Task, seed: int) -> Training:
    """Lion, whose updates are all of one size."""
    return training(task, seed, Lion(task.rate / 5, weight_decay=0.1))


def scaled_loss(task: Task, seed: int) -> Training:
    """float16 with a loss scale that overflows at first."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        result = training(task, seed)
    finally:
        keras.config.set_dtype_policy("float32")
    inner = keras.losses.get(task.loss)
    result.loss = lambda y, z: inner(y, keras.ops.cast(z, "float32"))
    result.optimizer = keras.optimizers.LossScaleOptimizer(result.optimizer, initial_scale=2.0**17)
    return result

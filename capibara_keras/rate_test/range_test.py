"""The learning-rate range test on a compiled model, which it leaves as it was."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.core import Core
from capibara_keras.experiment import Batch, checked_model, endless
from capibara_keras.monitoring.rate_range import RangeTest, ceiling, read_range
from capibara_keras.progress import Progress
from capibara_keras.rate_test.adjustable import adjustable
from capibara_keras.snapshot import preserved
from capibara_keras.unwrap import optimizers_of

__all__ = ["range_test"]

RECENT = 3
"""Losses of whose median divergence is judged."""


def range_test(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    sample_weight: Any = None,
    seed: int = 0,
    verbose: bool = True,
) -> RangeTest:
    """Train for a few updates while the learning rate rises exponentially, and see what the loss does (Smith 2017,
    arXiv 1506.01186, section 3.3; there the rate rises linearly).

        rate_i = low · (high / low)^(i / (steps - 1))

    It stops when the loss is not finite, or the median of three is above the best by the size of the first loss, and by
    more than the loss had fallen.
    Afterwards all is as before, bit for bit, also if it is interrupted: weights, statistics, seed generators, metrics,
    the optimizer's state, counters and schedule. The optimizer is built if it was not. Order and draws of the data
    come from a generator of its own; those that a `tf.data` pipeline makes by itself go on.

    The train step is traced once for all updates. A schedule is replaced by a constant for the test, so that `fit`
    traces its step anew. With accumulation one update takes all its micro-batches.

    Args:
        model: compiled with one optimizer of this package (Keras' `LossScaleOptimizer` may be around it), and built.
        x: arrays, or a dataset of batches: `tf.data.Dataset`, `PyDataset`, or any iterable that can be iterated again.
        y, sample_weight: arrays, where x is one.
        low, high: rates; of groups with a multiplier, before it.
        steps: updates, at least 10.
        batch_size: of arrays; the smaller rest is left out.
        seed: of the order of arrays.
        verbose: show a progress bar when it takes more than two seconds.

    Returns:
        `RangeTest`: the curve, `steepest` and `largest_stable`, and `plot`.

    Raises:
        ConfigError: as `loss_landscape`; another optimizer; `low` not below `high`; no data, or data that can be
            iterated only once; a first loss that is not finite.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(ck.SGD(learning_rate=0.01), "mse")
    >>> x, y = np.ones((8, 1)), np.zeros((8, 1))
    >>> test = ck.range_test(model, x, y, low=1e-3, high=10, batch_size=8, verbose=False)
    >>> test.diverged, f"{test.steepest:.2f}"
    (True, '0.02')
    >>> f"{model.optimizer.get_learning_rate():.2f}", int(model.optimizer.iterations)
    ('0.01', 0)
    """
    rates = _rates(low, high, steps)
    batch_size, seed = errors.integer("batch_size", batch_size, 1), errors.integer("seed", seed, 0)
    model = checked_model("range_test", model)
    optimizer = _optimizer(model)
    batches = endless(x, y, sample_weight, batch_size, seed)
    if not model.optimizer.built:  # Keras' wrapper would make its state a second time
        model.optimizer.build(model.trainable_variables)
    optimizer.build(model.trainable_variables)
    micro_batches = optimizer.gradient_accumulation_steps or 1
    progress = Progress(len(rates), verbose, "update")

    def train() -> float:
        """The update, and the mean loss before it."""
        return float(np.mean([_loss(model, next(batches)) for _ in range(micro_batches)]))

    with preserved(model), adjustable(model, optimizer) as set_rate:
        optimizer.training_mode()  # gradients are taken there
        losses = []
        for rate in rates:
            set_rate(float(rate))
            losses.append(train())
            progress.step()
            if not math.isfinite(losses[0]):
                raise errors.ConfigError("range_test: the first loss is not finite, before any update; look at x and y")
            if _diverged(losses):
                break
        else:
            losses.append(train())
    progress.end()
    after = np.array(losses[1:])
    return read_range(rates[: len(after)], after, losses[0], _diverged(losses))


def _rates(low: Any, high: Any, steps: Any) -> np.ndarray:
    low = errors.number("low", low, 0, open_low=True)
    high = errors.number("high", high, 0, open_low=True)
    if low >= high:
        raise errors.ConfigError(f"low, high: expected low < high, received low={low!r}, high={high!r}")
    return np.geomspace(low, high, errors.integer("steps", steps, 10))


def _optimizer(model: Any) -> Core:
    found = list(optimizers_of(model.optimizer))
    if len(found) != 1 or hasattr(model.optimizer, "optimizers"):
        raise errors.ConfigError(
            "range_test: needs a model compiled with one optimizer of capibara_keras, such as "
            f"`capibara_keras.Adam()`; received {type(model.optimizer).__name__}"
        )
    return found[0]


def _loss(model: Any, batch: Batch) -> float:
    """Of a batch, before the update with it; `inf` if it is not finite."""
    x, y, weights = batch
    try:
        logs = model.train_on_batch(x, y, weights, return_dict=True)
    except FloatingPointError:  # with `nonfinite="raise"`, where the step is not compiled
        return math.inf
    if "loss" not in logs:
        raise errors.ConfigError(f"train_step of {model.name} returns no 'loss', but {sorted(logs)}")
    return float(logs["loss"]) if math.isfinite(logs["loss"]) else math.inf


def _diverged(losses: list[float]) -> bool:
    """Whether the last loss is not finite, or the last ones are far above the best."""
    if not math.isfinite(losses[-1]):
        return True
    best = min(losses)
    return len(losses) > RECENT and float(np.median(losses[-RECENT:])) > ceiling(best, losses[0])

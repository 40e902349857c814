"""Runs a training and writes down what a monitor would see, update by update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.health.cases import Training
from capibara_keras.monitoring import Observation, Probe, Subject

__all__ = ["Epoch", "Recording", "record"]

EPOCHS = 10
"""Rounds that a training is cut into, for rules that look once per round."""


@dataclass
class Epoch:
    """What AUTOTRAINER looks at: once per epoch, gradients of one fixed batch."""

    update: int
    loss: float
    validation_loss: float
    accuracy: float
    validation_accuracy: float
    first_norm: float
    last_norm: float
    zero_fraction: float
    finite: bool


@dataclass
class Recording:
    """A training as a stream of observations."""

    subject: Subject
    onset: int = 0
    observations: list[Observation] = field(default_factory=list)
    validations: dict[int, float] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)


def record(training: Training, seed: int) -> Recording:
    """Train, and write down."""
    model, optimizer = training.model, training.optimizer
    variables = model.trainable_variables
    optimizer.build(variables)
    loss_of = keras.losses.get(training.loss) if isinstance(training.loss, str) else training.loss
    micro = optimizer.gradient_accumulation_steps or 1
    result = Recording(subject_of(training), training.onset)

    def measured_step(x: Any, y: Any) -> tuple[Any, ...]:
        before = [tf.identity(v.value) for v in variables]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(loss_of(y, model(x, training=True)))
        grads = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply(grads, variables)
        moved = [tf.norm(tf.cast(v.value - b, tf.float64)) for v, b in zip(variables, before, strict=True)]
        sizes = [tf.norm(tf.cast(b, tf.float64)) for b in before]
        return loss, [tf.convert_to_tensor(g) for g in grads if g is not None], sizes, moved

    missing = [False] * len(variables)

    def probing(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(loss_of(y, model(x, training=True)))
        grads = tape.gradient(loss, [v.value for v in variables])
        missing[:] = [g is None for g in grads]
        return loss

    step = tf.function(measured_step, autograph=False)
    batches = training.batches(seed)
    x, y = next(batches)
    tf.function(probing, autograph=False)(x, y)
    batches = training.batches(seed)
    for _ in range(training.warm_up):
        step(*next(batches))
    every = max(1, training.updates // EPOCHS)
    previous = None
    for update in range(training.updates):
        parts = [step(*next(batches)) for _ in range(micro)]
        loss = float(np.mean([float(part[0]) for part in parts]))
        grads = [mean([part[1][i] for part in parts]) for i in range(len(parts[0][1]))]
        full = iter(grads)
        grads = [None if absent else next(full) for absent in missing]
        observation = observed(update, training, loss, grads, parts[-1], previous)
        result.observations.append(observation)
        previous = grads
        if (update + 1) % every == 0:
            result.epochs.append(epoch(training, update, loss, grads))
            if training.watch_validation:
                result.validations[update] = result.epochs[-1].validation_loss
    return result


def mean(parts: list[Any]) -> np.ndarray:
    return np.mean([np.asarray(p) for p in parts], axis=0)


def subject_of(training: Training) -> Subject:
    """What the monitor would be told."""
    variables = training.model.trainable_variables
    optimizer = training.optimizer
    return Subject(
        paths=tuple(v.path for v in variables),
        shapes=tuple(tuple(v.shape) for v in variables),
        baseline_loss=training.baseline,
        adaptive="adam" in type(optimizer).__name__.lower(),
        epsilon=getattr(optimizer, "epsilon", float("nan")),
        fixed_clip=optimizer.clip_method != "adaptive",
    )


def observed(
    update: int, training: Training, loss: float, grads: list[Any], last: tuple[Any, ...], previous: Any
) -> Observation:
    """One update as a monitor sees it."""
    norms = np.array([np.nan if g is None else finite(norm(g)) for g in grads])
    total = finite(float(np.sqrt(np.nansum(norms**2))))
    sizes, moved = (np.array([finite(float(x)) for x in part]) for part in last[2:4])
    record = training.optimizer.statistics()
    decay = training.optimizer.weight_decay or 0.0
    decayed = np.sqrt(np.sum(sizes[[len(v.shape) > 0 for v in training.model.trainable_variables]] ** 2))
    return Observation(
        update=update,
        loss=finite(loss),
        learning_rate=record.learning_rate,
        gradient_norm=total,
        parameter_norm=finite(float(np.sqrt(np.sum(sizes**2)))),
        update_norm=finite(float(np.sqrt(np.sum(moved**2)))),
        clip_threshold=record.clip_threshold,
        clipped=record.clipped,
        skipped=record.skipped,
        gradient_norms=norms,
        parameter_norms=sizes,
        update_norms=moved,
        decay_norm=record.learning_rate * decay * decayed,
        probe=probe(training, grads, previous),
    )


def finite(x: float) -> float:
    return x if np.isfinite(x) else float("inf")


def norm(g: np.ndarray) -> float:
    return float(np.sqrt(np.sum(np.square(np.asarray(g, np.float64)))))


def probe(training: Training, grads: list[Any], previous: Any) -> Probe:
    """In NumPy, what the optimizer's probes do in the compiled step."""
    variables = training.model.trainable_variables
    silent, owners, n = [], [], len(variables)
    columns = {name: np.full(n, np.nan) for name in ("zero", "equal", "below", "half", "small")}
    subject = subject_of(training)
    moments = training.optimizer._state.slots
    t = int(training.optimizer.iterations.numpy())
    for i, (v, g) in enumerate(zip(variables, grads, strict=True)):
        w = np.asarray(v.value)
        if w.ndim >= 2 and w.shape[-1] >= 2:
            first = w.reshape(-1, w.shape[-1])
            size = np.abs(first[:, :1]).max()
            same = np.abs(first[:, 1:] - first[:, :1]).max(0) <= 1e-5 * size
            columns["equal"][i] = float(same.mean()) if size > 0 else 0.0
        if g is None:
            continue
        g = np.asarray(g, np.float64)
        columns["zero"][i] = (g == 0).mean()
        small = np.abs(g[(g != 0) & (np.abs(g) < 2.0**-14)])
        columns["small"][i] = small.size
        columns["half"][i] = (small * 2.0**24 == np.round(small * 2.0**24)).mean() if small.size else 0.0
        if len(moments[i]) >= 2 and t:
            second = np.asarray(moments[i][1], np.float64) / (1 - training.optimizer.beta_2**t)
            if (second > 0).any():
                columns["below"][i] = (np.sqrt(second[second > 0]) < training.optimizer.epsilon).mean()
        pair = i + 1 < n and subject.layer_of[i] == subject.layer_of[i + 1]
        if pair and g.ndim >= 2 and grads[i + 1] is not None and grads[i + 1].shape == g.shape[-1:]:
            silent.append((g == 0).reshape(-1, g.shape[-1]).all(0) & (np.asarray(grads[i + 1]) == 0))
            owners.append(np.full(g.shape[-1], subject.layer_of[i]))
    known = previous is not None
    dots = [float(np.sum(np.float64(g) * p)) for g, p in zip(grads, previous or [], strict=False) if g is not None]
    return Probe(
        silent_units=np.concatenate(silent) if silent else np.zeros(0, bool),
        unit_layers=np.concatenate(owners) if owners else np.zeros(0, np.int64),
        zero_fraction=columns["zero"],
        equal_columns=columns["equal"],
        below_epsilon=columns["below"],
        half_precision=columns["half"],
        small_entries=columns["small"],
        gradient_dot=float(np.sum(dots)) if known else float("nan"),
    )


def epoch(training: Training, update: int, loss: float, grads: list[Any]) -> Epoch:
    """What AUTOTRAINER sees at the end of an epoch."""
    data, task = training.data, training.task
    loss_of = keras.losses.get(training.loss) if isinstance(training.loss, str) else training.loss
    known = [np.asarray(g) for g in grads if g is not None]
    kernels = [norm(g) for g in known if g.ndim >= 2]
    z, zv = (np.asarray(training.model(x[:500])) for x in (data.x, data.x_validation))
    values = [float(np.mean(loss_of(y, p))) for y, p in ((data.y[:500], z), (data.y_validation[:500], zv))]
    return Epoch(
        update=update,
        loss=values[0],
        validation_loss=values[1],
        accuracy=accuracy(task.classes, data.y[:500], z),
        validation_accuracy=accuracy(task.classes, data.y_validation[:500], zv),
        first_norm=kernels[0],
        last_norm=kernels[-1],
        zero_fraction=sum(float((g == 0).sum()) for g in known) / sum(g.size for g in known),
        finite=all(np.isfinite(g).all() for g in known)
        and all(np.isfinite(np.asarray(v.value)).all() for v in training.model.trainable_variables),
    )


def accuracy(classes: int, y: np.ndarray, z: np.ndarray) -> float:
    """Of a classification; unknown for a regression."""
    if not classes:
        return float("nan")
    if z.shape[-1] == 1:
        return float(((z > 0) == (y > 0.5)).mean())
    return float((z.argmax(-1) == y).mean())

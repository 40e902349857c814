"""A program for tests/test_checkpoint.py: train, saving after every batch; or load in a new process, and go on.

python tests/resume.py save FOLDER CASE...       prints {case: number of updates}
python tests/resume.py resume FOLDER CASE...     prints {"case | format | batch": [variables that differ]}
"""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import capibara_keras as ck
from capibara_keras.schedules import CosineWithWarmup

TENSORFLOW = keras.backend.backend() == "tensorflow"
BATCHES, EPOCHS, MIDDLE = 7, 4, 4


def schedule() -> CosineWithWarmup:
    return CosineWithWarmup(0.05, total_steps=20, warmup_steps=2)


def adamw() -> ck.AdamW:
    optimizer = ck.AdamW(
        schedule(), weight_decay=0.1, amsgrad=True, global_clipnorm=0.5, gradient_accumulation_steps=2, use_ema=True
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


CASES: dict[str, Callable[[], Any]] = {
    "adam": lambda: ck.Adam(0.05, clipnorm=0.5, loss_scale_factor=3.0),
    "adamw, everything": adamw,
    "sgd, window of 3, average overwrites": lambda: ck.Optimizer(
        "sgd",
        0.05,
        momentum=0.9,
        nesterov=True,
        clipvalue=0.5,
        gradient_accumulation_steps=3,
        use_ema=True,
        ema_overwrite_frequency=2,
        scheduler_type="linear_with_warmup",
        total_steps=20,
        jit_compile=False,
    ),
    "inside LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(
        ck.Adam(0.05, gradient_accumulation_steps=2, jit_compile=False), dynamic_growth_steps=3
    ),
}

THOROUGH = ["adamw, everything", "inside LossScaleOptimizer"]
"""Cases that are also loaded before the optimizer is built."""

WHOLE_FITS = ["sgd, window of 3, average overwrites"]
"""Cases in which `fit` is interrupted, too."""


def data() -> tuple[np.ndarray, np.ndarray]:
    """Batches of four, one of them with an infinite gradient."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4 * BATCHES, 4)).astype("float32")
    y = rng.normal(size=(4 * BATCHES, 1)).astype("float32")
    y[9] = np.inf
    return x, y


def model(case: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(3, "tanh", name="a"), keras.layers.Dense(1, name="b")]
    one = keras.Sequential(layers, name="m")
    one.compile(CASES[case](), "mse")
    return one


def train(one: keras.Model, batch: int) -> None:
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one.train_on_batch(x[4 * batch : 4 * batch + 4], y[4 * batch : 4 * batch + 4])
    if batch == 2 and not hasattr(one.optimizer, "inner_optimizer"):  # someone lowers the rate
        one.optimizer.learning_rate = 0.75 * float(keras.ops.convert_to_numpy(one.optimizer.learning_rate))


def state(one: keras.Model) -> dict[str, np.ndarray]:
    """All variables of the model and its optimizer."""
    found = {f"weight {i}": v for i, v in enumerate(one.weights)}
    found |= {f"optimizer {i}": v for i, v in enumerate(one.optimizer.variables)}
    return {name: np.array(keras.ops.convert_to_numpy(v)) for name, v in found.items()}


def differing(one: keras.Model, folder: Path, name: str) -> list[str]:
    """Names of the variables that are not bit for bit as in the run that never stopped."""
    expected, found = dict(np.load(folder / f"{name}.npz")), state(one)
    names = {
        f"optimizer {i}": f"{v.path} of {type(one.optimizer).__name__}" for i, v in enumerate(one.optimizer.variables)
    }
    same = {n for n in expected.keys() & found.keys() if expected[n].tobytes() == found[n].tobytes()}
    return [names.get(n, n) for n in sorted(expected.keys() | found.keys()) if n not in same]


def save(folder: Path, cases: list[str]) -> dict[str, int]:
    updates = {}
    for number, case in enumerate(cases):
        one = model(case)
        if TENSORFLOW:
            import tensorflow as tf

            checkpoint = tf.train.Checkpoint(model=one, optimizer=one.optimizer)
        for batch in range(BATCHES):
            train(one, batch)
            one.save_weights(folder / f"{number}-{batch}.weights.h5")
            if TENSORFLOW:
                checkpoint.write(str(folder / f"{number}-{batch}"))
            if batch == MIDDLE:
                one.save(folder / f"{number}.keras")
        np.savez(folder / f"{number}.npz", **state(one))
        updates[case] = int(keras.ops.convert_to_numpy(one.optimizer.iterations))
        if case not in WHOLE_FITS:
            continue
        whole = model(case)
        fit(whole, EPOCHS)
        np.savez(folder / f"{number}-fit.npz", **state(whole))
        interrupted = model(case)
        stop = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: sys.exit() if epoch == 2 else None)
        with contextlib.suppress(SystemExit):
            fit(interrupted, EPOCHS, backup(folder, number), stop)
    return updates


def backup(folder: Path, number: int) -> keras.callbacks.Callback:
    return keras.callbacks.BackupAndRestore(folder / f"backup-{number}")


def fit(one: keras.Model, epochs: int, *callbacks: keras.callbacks.Callback) -> None:
    x, y = data()
    one.fit(x, y, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def resume(folder: Path, cases: list[str]) -> dict[str, list[str]]:
    result = {}
    for number, case in enumerate(cases):

        def go_on(one: keras.Model, how: str, batch: int, number: int = number, case: str = case) -> None:
            for later in range(batch + 1, BATCHES):
                train(one, later)
            result[f"{case} | {how} | {batch}"] = differing(one, folder, str(number))

        if case in THOROUGH:
            unbuilt = model(case)
            unbuilt.load_weights(folder / f"{number}-{MIDDLE}.weights.h5")
            go_on(unbuilt, "unbuilt .weights.h5", MIDDLE)
        loaded = keras.saving.load_model(folder / f"{number}.keras")
        go_on(loaded, ".keras", MIDDLE)
        for batch in range(BATCHES):  # now it has a train step, and state that must be overwritten
            loaded.load_weights(folder / f"{number}-{batch}.weights.h5")
            go_on(loaded, "built .weights.h5", batch)
        if TENSORFLOW:
            resume_checkpoints(folder, number, case, loaded, go_on)
        if case not in WHOLE_FITS:
            continue
        again = model(case)
        fit(again, EPOCHS, backup(folder, number))
        result[f"{case} | BackupAndRestore | 2 epochs"] = differing(again, folder, f"{number}-fit")
    return result


def resume_checkpoints(folder: Path, number: int, case: str, built: keras.Model, go_on: Callable[..., None]) -> None:
    import tensorflow as tf

    checkpoint = tf.train.Checkpoint(model=built, optimizer=built.optimizer)
    for batch in range(BATCHES):
        checkpoint.read(str(folder / f"{number}-{batch}")).assert_consumed()
        go_on(built, "tf.train.Checkpoint", batch)
    if case not in THOROUGH:
        return
    deferred = model(case)
    status = tf.train.Checkpoint(model=deferred, optimizer=deferred.optimizer).read(str(folder / f"{number}-{MIDDLE}"))
    go_on(deferred, "deferred tf.train.Checkpoint", MIDDLE)
    status.assert_consumed()


if __name__ == "__main__":
    print(json.dumps({"save": save, "resume": resume}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:])))

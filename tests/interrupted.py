"""A program for tests/test_resume.py: a run that is never stopped, and the same one killed and resumed.

python tests/interrupted.py compare CASE...             prints {case: variables that differ}, all in this process
python tests/interrupted.py train FOLDER CASE [BATCH]   trains; `kill -9` before that batch; writes FOLDER/end.npz
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

import capibara_keras as ck

TENSORFLOW = keras.backend.backend() == "tensorflow"
ROWS, SIZE, EPOCHS, EVERY = 44, 4, 3, 3
STEPS = ROWS // SIZE


def adamw(**options: Any) -> ck.AdamW:
    """Nearly every kind of state."""
    return ck.AdamW(
        0.05, weight_decay=0.1, amsgrad=True, clip_method="adaptive", gradient_accumulation_steps=4, use_ema=True,
        scheduler_type="cosine_with_warmup", warmup_ratio=0.1, **options,
    )  # fmt: skip


class Rows(keras.utils.PyDataset):
    """Batches that the host's random numbers do not touch."""

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = arrays()
        return x[SIZE * index : SIZE * (index + 1)], y[SIZE * index : SIZE * (index + 1)]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(ROWS, 4)).astype("float32"), rng.normal(size=(ROWS, 1)).astype("float32")


def shuffled(epoch: int) -> Any:
    """A generator: batches in an order that depends on the epoch."""
    for place in np.random.default_rng(epoch).permutation(STEPS):
        yield Rows()[place]


def dataset() -> Any:
    """A `tf.data.Dataset` with a shuffle buffer that is anew in each epoch."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays()).shuffle(16, seed=3).batch(SIZE).prefetch(2)


@dataclass(frozen=True)
class Case:
    """An optimizer, how `fit` gets its data, and before which batch (of all epochs) the run is killed."""

    optimizer: Callable[[], Any]
    data: Callable[[ck.Resume], Any]
    kill: int = 17
    compiled: dict[str, Any] | None = None
    steps: int | None = STEPS


CASES = {
    "arrays": Case(adamw, lambda resume: resume.data(arrays(), SIZE)),
    "arrays, step not compiled": Case(lambda: adamw(jit_compile=False), lambda r: r.data(arrays(), SIZE), 5),
    "arrays, all compiled": Case(adamw, lambda r: r.data(arrays(), SIZE), 20, {"jit_compile": True}),
    "PyDataset": Case(lambda: ck.ScheduleFreeSGD(0.05), lambda r: r.data(Rows()), 23),
    "generator": Case(lambda: ck.Adam(0.05), lambda r: r.data(shuffled, steps=STEPS), 8),
    "several batches at once": Case(adamw, lambda r: r.data(arrays(), SIZE), 6, {"steps_per_execution": 2}),
    "loss scaling": Case(lambda: keras.optimizers.LossScaleOptimizer(ck.Adam(0.05)), lambda r: r.data(arrays(), SIZE)),
    "tf.data": Case(adamw, lambda r: dataset(), steps=None),
    "tf.data, endless": Case(adamw, lambda r: dataset().repeat(), 15),
    "Keras optimizer": Case(lambda: keras.optimizers.Adam(0.05), lambda r: r.data(arrays(), SIZE), 14),
}


class Noise(keras.callbacks.Callback):
    """Uses the host's random numbers, keeps a state of its own, and kills.

    Args:
        kill: before which batch of all epochs.
        how: what is done then.
    """

    def __init__(self, kill: int | None, how: Callable[[], Any]) -> None:
        super().__init__()
        self.kill, self.how = (kill,), how  # a tuple: not of the state that is kept
        self.total, self.drawn = 0, [0.0, 0.0]
        self.epoch, self.trained = 0, -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.trained = epoch, -1

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.kill[0] is not None and self.epoch * STEPS + batch >= self.kill[0]:
            self.how()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.total += 1
        self.drawn = [self.drawn[0] + random.random(), self.drawn[1] + float(np.random.uniform())]


def train(case: Case, folder: Path, kill: int | None, how: Callable[[], Any]) -> tuple[keras.Model, Noise, Any]:
    """A run, resumed if there is something in the folder."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, "tanh", name="a"), keras.layers.Dropout(0.3), keras.layers.Dense(1, name="b")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(case.optimizer(), "mse", metrics=["mae"], **(case.compiled or {}))
    noise = Noise(kill, how)
    resume = ck.Resume(folder, every=EVERY if not case.compiled else 2, callbacks=[noise])
    history = model.fit(
        case.data(resume),
        steps_per_epoch=case.steps,
        epochs=EPOCHS,
        verbose=0,
        shuffle=False,
        callbacks=[resume, noise],
    )
    return model, noise, history


def state(model: keras.Model, noise: Noise, history: Any) -> dict[str, np.ndarray]:
    """All that must be the same at the end, the logs of every epoch included."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    found = {f"{i} {v.path}": np.array(keras.ops.convert_to_numpy(v)) for i, v in enumerate(variables)}
    found |= {f"history {name}": np.array(values) for name, values in history.history.items()}
    return found | {"noise": np.array([noise.total, *noise.drawn])}


def differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> list[str]:
    return [
        n for n in sorted({*one, *other}) if n not in one or n not in other or one[n].tobytes() != other[n].tobytes()
    ]


class Killed(Exception):
    pass


def killed() -> None:
    raise Killed


def compare(names: list[str]) -> dict[str, list[str]]:
    result = {}
    for name in names:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            expected = state(*train(case, Path(one) / "run", None, killed))
            with contextlib.suppress(Killed):
                train(case, Path(two) / "run", case.kill, killed)
                raise SystemExit(f"{name}: was not killed")
            assert list(Path(two).glob("run/*.run")), f"{name}: nothing was saved"
            found = state(*train(case, Path(two) / "run", None, killed))
        rename = dict(zip(found, expected, strict=True))  # a second model has dense_1 for dense
        result[name] = differing({rename[n]: a for n, a in found.items()}, expected)
    return result


def main(command: str, *arguments: str) -> None:
    if TENSORFLOW:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if command == "compare":
        print(json.dumps(compare(list(arguments))))
        return
    folder, case, *batch = arguments
    kill = int(batch[0]) if batch else None
    found = state(*train(CASES[case], Path(folder) / "run", kill, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    np.savez(Path(folder) / "end.npz", **found)
    print(json.dumps("done"))


if __name__ == "__main__":
    main(*sys.argv[1:])

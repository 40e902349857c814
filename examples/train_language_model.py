"""Trains a small language model on Python's own standard library: AdamW, warmup and cosine, clipping.

    python examples/train_language_model.py                          about 3 minutes on 2 cores
    python examples/train_language_model.py --steps 20 --size tiny   a few seconds
    python examples/train_language_model.py --resume                 goes on after Ctrl-C, as if never stopped

Everything lands in runs/language_model (`--out` changes it):

    history.json            settings, each update's loss, learning rate and gradient norm, validation losses
    step-NNNNNN.weights.h5  weights and optimizer state after the update that history.json ends with
    curves.png, curves.svg  the three curves
    report.html             loss, norms and layers on one page, with what a monitor has to say; kept up to date. After
                            `--resume` it begins there
    sample.txt              what the model writes after "def "
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import language_model as lm
import numpy as np

from capibara_keras import AdamW
from capibara_keras.callbacks import LogStatistics, TrainingReport
from capibara_keras.schedules import CosineWithWarmup

DEFAULTS = {"steps": 1600, "size": "small", "seed": 0}
CLIP_NORM = 1.0
VALIDATION_WINDOWS = 512
PROMPT, SAMPLE_BYTES = "def ", 300
CURVES = ("loss", "learning_rate", "gradient_norm")


# --- The run and its checkpoint -----------------------------------------------------------------------------


@dataclass
class Run:
    """What a run remembers beside the model. `updates` has a list per curve, with one number per update."""

    settings: dict[str, int | str]
    unigram: float
    weights: str = ""
    updates: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in CURVES})
    validation: dict[str, list[float]] = field(default_factory=lambda: {"step": [], "bits_per_byte": []})

    @property
    def step(self) -> int:
        return len(self.updates["loss"])


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end: nobody ever finds half a file."""
    temporary = path.with_name(f".partial-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(run: Run, model: keras.Model, directory: Path) -> None:
    """Weights first, then the history that names them, then the old weights go: the two always agree."""
    run.weights = f"step-{run.step:06d}.weights.h5"
    with replacing(directory / run.weights) as temporary:
        model.save_weights(temporary)
    with replacing(directory / "history.json") as temporary:
        temporary.write_text(json.dumps(asdict(run)))
    for old in directory.glob("*step-*.weights.h5"):
        if old.name != run.weights:
            old.unlink()


def discard(directory: Path) -> None:
    """Removes an earlier run, the history first, so that nothing ever names weights that are gone."""
    if (directory / "history.json").exists():
        print(f"Replacing the earlier run in {directory} (--resume would have continued it).")
    for old in (directory / "history.json", *directory.glob("*step-*.weights.h5")):
        old.unlink(missing_ok=True)


def restore(run: Run, model: keras.Model, directory: Path) -> None:
    """Loads weights, moments and the update counter; the optimizer has to know its variables before that."""
    model.optimizer.build(model.trainable_variables)
    model.load_weights(directory / run.weights)
    if int(model.optimizer.iterations) != run.step:
        sys.exit(f"{run.weights} is at update {int(model.optimizer.iterations)}, history.json at {run.step}.")


# --- Training -----------------------------------------------------------------------------------------------


def make_deterministic(seed: int) -> None:
    """The same seed gives the same bits. TensorFlow has to be asked not to let threads race for a sum."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


def compiled_model(settings: dict[str, int | str]) -> keras.Model:
    size, steps = lm.SIZES[settings["size"]], settings["steps"]
    schedule = CosineWithWarmup(
        peak_learning_rate=size.learning_rate,
        total_steps=steps,
        warmup_steps=max(1, steps // 10),
        min_learning_rate=size.learning_rate / 20,
    )
    optimizer = AdamW(schedule, beta_1=0.9, beta_2=0.95, weight_decay=0.1, global_clipnorm=CLIP_NORM)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "embedding"])
    model = lm.build_model(size)
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


class Record(keras.callbacks.Callback):
    """Keeps each update's numbers; stops after the update in which Ctrl-C came, or after `stop_at`."""

    def __init__(self, run: Run, stop_at: int | None):
        super().__init__()
        self.run, self.stop_at, self.stopped = run, stop_at, False

    def stop(self, signal_number, frame) -> None:
        self.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends at once

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()  # or Keras would give the mean loss since `fit` began

    def on_train_batch_end(self, batch, logs=None):
        for name in CURVES:
            self.run.updates[name].append(float(logs[name]))
        self.stopped = self.stopped or self.run.step == self.stop_at
        self.model.stop_training = self.stopped


def train(run: Run, model: keras.Model, corpus: lm.Corpus, directory: Path, record: Record) -> None:
    """Trains in rounds, with a validation and a checkpoint after each; a stopped round is finished."""
    size, steps, seed = lm.SIZES[run.settings["size"]], run.settings["steps"], run.settings["seed"]
    validation = lm.validation_windows(corpus.validation, VALIDATION_WINDOWS, size.context)
    report = TrainingReport(directory, title=f"Language model, size {run.settings['size']}")
    shown = LogStatistics(names=("learning_rate", "gradient_norm", "update_ratio"))
    round_length = min(200, max(10, steps // 10))
    while run.step < steps and not record.stopped:
        last = min(steps, (run.step // round_length + 1) * round_length)
        print(f"\nUpdates {run.step + 1} to {last} of {steps}")
        inputs, targets = lm.training_batches(corpus.train, run.step, last, size, seed)
        model.fit(inputs, targets, size.batch_size, shuffle=False, callbacks=[report, shown, record])
        if run.step == last:
            bits = lm.bits_per_byte(model, validation, size.batch_size)
            run.validation["step"].append(last)
            run.validation["bits_per_byte"].append(bits)
            report.validate(bits * math.log(2))
            print(f"Validation: {bits:.3f} bits per byte (unigram baseline {run.unigram:.3f})")
        save(run, model, directory)
    report.write(pictures=True)  # with the last validation


# --- Results ------------------------------------------------------------------------------------------------


def draw(run: Run, directory: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, (loss, rate, norm) = pyplot.subplots(3, 1, sharex=True, figsize=(8, 8), layout="constrained")
    updates, bits = np.arange(1, run.step + 1), np.array(run.updates["loss"]) / math.log(2)
    loss.plot(updates, bits, color="tab:blue", alpha=0.6, linewidth=0.8, label="training, each batch")
    loss.plot(*run.validation.values(), "o-", color="tab:orange", label="validation")
    loss.axhline(run.unigram, linestyle="--", color="gray", label="unigram baseline (validation)")
    loss.set(ylabel="loss (bits per byte)", title=f"Size {run.settings['size']}, {run.step} updates of AdamW")
    rate.plot(updates, run.updates["learning_rate"], color="tab:green", label="warmup, then cosine")
    rate.set(ylabel="learning rate")
    norm.plot(updates, run.updates["gradient_norm"], color="tab:red", linewidth=0.8, label="before clipping")
    norm.axhline(CLIP_NORM, linestyle="--", color="gray", label="clip limit")
    norm.set(ylabel="gradient norm", yscale="log", xlabel="updates")
    norm.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    norm.yaxis.set_major_formatter("{x:g}")
    norm.yaxis.set_minor_formatter("")
    for axes in (loss, rate, norm):
        axes.legend()
        axes.grid(alpha=0.3)
    for suffix in ("png", "svg"):
        with replacing(directory / f"curves.{suffix}") as temporary:
            figure.savefig(temporary, dpi=150)
    pyplot.close(figure)


def write_sample(run: Run, model: keras.Model, directory: Path) -> None:
    text = lm.sample(model, PROMPT, SAMPLE_BYTES, seed=run.settings["seed"])
    with replacing(directory / "sample.txt") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"\nThe model continues {PROMPT!r}:\n{'-' * 60}\n{text}\n{'-' * 60}")


# --- Command line -------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help=f"updates in the whole run ({DEFAULTS['steps']})")
    parser.add_argument("--size", choices=lm.SIZES, help=f"of the network ({DEFAULTS['size']})")
    parser.add_argument("--seed", type=int, help=f"of weights, batches and sample ({DEFAULTS['seed']})")
    parser.add_argument("--out", type=Path, default=Path("runs/language_model"), help="(%(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--stop-at", type=int, metavar="STEP", help="stop after this update, as Ctrl-C would")
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.steps < 1:
        parser.error(f"--steps must be at least 1, received {arguments.steps}.")
    return arguments


def begin(arguments: argparse.Namespace, corpus: lm.Corpus) -> Run:
    """A new run, or the one to resume, which must have the same settings and text."""
    given = {name: value for name, value in vars(arguments).items() if name in DEFAULTS and value is not None}
    if not arguments.resume:
        settings = {**DEFAULTS, **given, "corpus": corpus.digest}
        context = lm.SIZES[settings["size"]].context
        _, targets = lm.validation_windows(corpus.validation, VALIDATION_WINDOWS, context)
        return Run(settings, lm.unigram_bits(corpus.train, targets))
    path = arguments.out / "history.json"
    if not path.exists():
        sys.exit(f"Nothing to resume: there is no {path}. Leave out --resume, or name the run with --out.")
    run = Run(**json.loads(path.read_text()))
    for name, value in {**given, "corpus": corpus.digest}.items():
        if value != run.settings[name]:
            sys.exit(
                f"Cannot resume: in {arguments.out}, {name} is {run.settings[name]}, not {value}. "
                "Resume it with the same settings and Python, or start a new run with another --out."
            )
    return run


def main() -> None:
    arguments, started = parse_arguments(), time.perf_counter()
    corpus, directory = lm.read_corpus(), arguments.out
    run = begin(arguments, corpus)
    make_deterministic(run.settings["seed"])
    model = compiled_model(run.settings)
    directory.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        restore(run, model, directory)
    else:
        discard(directory)
    print(
        f"{len(corpus.train) / 1e6:.1f} MB to train on, {len(corpus.validation) / 1e6:.1f} MB to validate, "
        f"{model.count_params():,} parameters, after update {run.step} of {run.settings['steps']}"
    )
    record = Record(run, arguments.stop_at)
    usual = signal.signal(signal.SIGINT, record.stop)
    train(run, model, corpus, directory, record)
    signal.signal(signal.SIGINT, usual)
    if run.step < run.settings["steps"]:
        print(f"\nStopped and saved after update {run.step}. Go on with:")
        print(f"  python {sys.argv[0]} --resume --out {directory}")
        return
    draw(run, directory)
    write_sample(run, model, directory)
    print(
        f"Validation: {run.validation['bits_per_byte'][-1]:.3f} bits per byte, unigram {run.unigram:.3f}. "
        f"{time.perf_counter() - started:.0f} s. Results are in {directory}; look at {directory / 'report.html'}"
    )


if __name__ == "__main__":
    main()

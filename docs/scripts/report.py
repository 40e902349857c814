"""Draws docs/figures/report.png: the page of a run whose early layers learn nothing. `python docs/scripts/report.py`"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import keras
from sklearn.datasets import load_digits

import capibara_keras as ck

FIGURE = Path(__file__).parents[1] / "figures" / "report.png"


def main() -> None:
    """Twelve sigmoid layers on the digits."""
    digits = load_digits()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, activation="sigmoid", name=f"hidden_{i}") for i in range(12)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10, name="head")])
    optimizer = ck.SGD(ck.schedules.CosineWithWarmup(0.3, 270, warmup_steps=27), momentum=0.9, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with tempfile.TemporaryDirectory() as directory:
        report = ck.TrainingReport(directory, title="Twelve sigmoid layers, no normalisation")
        model.fit(digits.data / 16, digits.target, 32, 6, validation_split=0.2, verbose=0, callbacks=[report])
        shutil.copy(Path(directory) / "report.png", FIGURE)
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()

"""Draws docs/figures/plots.png: what docs/plots.md is about, of one training. `python docs/scripts/plots.py`."""

from __future__ import annotations

import time
from pathlib import Path

import keras
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import capibara_keras as ck

FIGURE = Path(__file__).parents[1] / "figures" / "plots.png"


def model(optimizer: ck.Optimizer) -> keras.Model:
    """A small network for images of digits."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)]
    network = keras.Sequential(layers)
    network.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network


def draw(path: Path) -> None:
    """Four figures as one."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    rates = ck.range_test(model(ck.Adam()), x, y)
    optimizer = ck.Adam(1e-2, scheduler_type="cosine_with_warmup", warmup_ratio=0.1)
    curve = ck.schedule_curve(optimizer, 570)
    network, trajectory = model(optimizer), ck.Trajectory(limit=20)
    network.fit(x, y, epochs=10, verbose=0, callbacks=[trajectory])
    began = time.perf_counter()
    line = ck.loss_landscape(network, x[:512], y[:512])
    between = time.perf_counter()
    plane = ck.trajectory_plane(network, trajectory, x[:512], y[:512])
    print(f"line {between - began:.1f} s, plane {time.perf_counter() - between:.1f} s")
    print(f"steepest {rates.steepest:.2g}, largest stable {rates.largest_stable:.2g}; {plane.caution}")
    figure = Figure(figsize=(15, 11), layout="constrained")
    (a, b), (c, d) = figure.subfigures(2, 2)
    line.draw(a)
    plane.draw(b)
    rates.draw(c)
    curve.draw(d)
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    draw(FIGURE)
    print(f"wrote {FIGURE}")

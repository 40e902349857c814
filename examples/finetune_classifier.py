"""Fine-tune a small network with layer-wise rates and gradual unfreezing, beside plain Adam with the same budget.

The network learns the digits 0 to 4, then gets a new head and four examples of each of the digits 5 to 9. Layers near
the input should change less than the head: `layer_wise_lr_decay` multiplies the rate by 0.75 per level below the head,
and blocks join one after the other, from the top. A block that joins begins its bias correction then.

    python examples/finetune_classifier.py             # 5 seeds, about 3 minutes
    python examples/finetune_classifier.py --quick     # one seed, a few epochs: only to see it run
"""

from __future__ import annotations

import sys

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import capibara_keras as ck

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES = (IMAGES.reshape(-1, 8, 8, 1) / 16).astype("float32")


def block(number: int, filters: int, pool: bool) -> keras.Model:
    """Convolution, normalisation, ReLU, and maybe pooling."""
    convolution, norm = layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.GroupNormalization(4)
    after = [layers.ReLU(), layers.MaxPooling2D()] if pool else [layers.ReLU()]
    return keras.Sequential([convolution, norm, *after], name=f"block_{number}")


def network() -> keras.Model:
    """Four blocks and a head for five classes."""
    blocks = [block(i, filters, pool=i % 2 == 1) for i, filters in enumerate((16, 32, 32, 64))]
    return keras.Sequential([keras.Input((8, 8, 1)), *blocks, layers.Flatten(), layers.Dense(5, name="head")])


def compiled(model: keras.Model, optimizer: keras.Optimizer) -> keras.Model:
    """The model with an optimizer."""
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def pretrained(seed: int, epochs: int) -> list[np.ndarray]:
    """Weights of a network that knows the digits 0 to 4."""
    keras.utils.set_random_seed(seed)
    model, old = compiled(network(), ck.Adam(3e-3)), LABELS < 5
    model.fit(IMAGES[old], LABELS[old], batch_size=32, epochs=epochs, verbose=0)
    return model.get_weights()


def with_new_head(weights: list[np.ndarray], seed: int) -> keras.Model:
    """A network with these weights below its head."""
    keras.utils.set_random_seed(1000 + seed)
    model = network()
    model.set_weights([*weights[:-2], *model.get_weights()[-2:]])
    return model


def plain(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """Keras' defaults: one rate for everything."""
    compiled(model, ck.Adam()).fit(x, y, batch_size=10, epochs=epochs, verbose=0)


def gradual(model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int) -> None:
    """The head alone, then one more block after each quarter; deeper ones with lower rates."""
    optimizer, blocks = ck.Adam(3e-3, layer_wise_lr_decay=0.75), model.layers[:4]
    for stage, trained in enumerate([[], blocks[3:], blocks[2:], blocks]):
        for block in blocks:
            block.trainable = block in trained
        compiled(model, optimizer)
        first, last = epochs * stage // 4, epochs * (stage + 1) // 4
        model.fit(x, y, batch_size=10, initial_epoch=first, epochs=last, verbose=0, callbacks=[ck.Attach()])


def main() -> None:
    """Both ways on several seeds; prints what was chosen for each variable, and the accuracies."""
    seeds, epochs, before = (1, 4, 1) if "--quick" in sys.argv else (5, 40, 8)
    results: dict[str, list[float]] = {"plain Adam": [], "layer-wise, gradual": []}
    for seed in range(seeds):
        rng, new = np.random.default_rng(seed), np.flatnonzero(LABELS >= 5)
        chosen = np.concatenate([rng.permutation(np.flatnonzero(digit == LABELS))[:4] for digit in range(5, 10)])
        rest, weights = np.setdiff1d(new, chosen), pretrained(seed, before)
        for name, tune in zip(results, (plain, gradual), strict=True):
            model = with_new_head(weights, seed)
            keras.utils.set_random_seed(seed)
            tune(model, IMAGES[chosen], LABELS[chosen] - 5, epochs)
            results[name].append(model.evaluate(IMAGES[rest], LABELS[rest] - 5, batch_size=512, verbose=0)[1])
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in results.items()), flush=True)
    model.optimizer.describe()
    for name, values in results.items():
        print(f"{name:20} accuracy {np.mean(values):.3f} ± {np.std(values):.3f}")
    gains = np.subtract(*reversed(list(results.values())))
    print(f"{'gain':20} {np.mean(gains):+.3f} ± {np.std(gains):.3f}, on {np.sum(gains > 0)} of {seeds} seeds")


if __name__ == "__main__":
    main()

"""Accumulation: four micro-batches make the update of one large batch, with a schedule that counts updates.

    python examples/accumulation.py

The last window of `fit` may not be full; a callback of this package uses it all the same.
"""

from __future__ import annotations

import keras
import numpy as np

import capibara_keras as ck


def trained(batch_size: int, steps: int | None) -> tuple[ck.Optimizer, np.ndarray]:
    """The optimizer, and the weights after one epoch over 144 examples."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(144, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    schedule = {"scheduler_type": "linear_with_warmup", "max_steps": 3}
    optimizer = ck.AdamW(1e-2, global_clipnorm=1.0, gradient_accumulation_steps=steps, **schedule)
    model.compile(optimizer, "mse")
    model.fit(x, x.sum(1, keepdims=True), batch_size=batch_size, shuffle=False, verbose=0, callbacks=[ck.Attach()])
    return optimizer, np.concatenate([w.ravel() for w in model.get_weights()])


def main() -> None:
    """Both ways, and their difference."""
    (large, expected), (small, found) = trained(64, None), trained(16, 4)
    for name, optimizer in (("batches of 64", large), ("4 x 16", small)):
        print(f"{name:14} {optimizer.counters()['micro_steps']} batches, {int(optimizer.iterations)} updates")
    print(f"largest difference of a weight: {np.abs(found - expected).max():.0e}")


if __name__ == "__main__":
    main()

"""Compile and fit: change the import, and give `fit` one callback.

    python examples/compile_and_fit.py

The callback tells the optimizer how many updates there will be, so that a schedule needs no numbers of steps, and puts
the rate and the gradient's norm into Keras' logs.
"""

from __future__ import annotations

import keras
import numpy as np

import capibara_keras as ck


def main() -> None:
    """Fit a curve."""
    keras.utils.set_random_seed(0)
    x = np.linspace(-3, 3, 512, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(1)])
    optimizer = ck.AdamW(learning_rate=3e-2, scheduler_type="cosine_with_warmup", warmup_ratio=0.1, weight_decay=1e-3)
    model.compile(optimizer, "mse")
    history = model.fit(x, np.sin(x), batch_size=32, epochs=10, verbose=0, callbacks=[ck.LogStatistics()]).history
    for name in ("loss", "learning_rate", "gradient_norm"):
        print(f"{name:14} first epoch {history[name][0]:.2e}, last {history[name][-1]:.2e}")
    print(f"{int(optimizer.iterations)} updates")


if __name__ == "__main__":
    main()

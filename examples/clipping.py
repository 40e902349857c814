"""Clipping: what each way does to one gradient, and an adaptive limit that finds itself.

python examples/clipping.py
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

import capibara_keras as ck

GRADIENTS = [[3.0, 4.0], [0.0, 12.0]]  # norms 5 and 12, together 13


def moved(**options: object) -> list[list[float]]:
    """How far two variables go in one step of rate 1: the clipped gradient."""
    variables = [keras.Variable([0.0, 0.0]) for _ in GRADIENTS]
    ck.SGD(1.0, **options).apply([ops.array(g) for g in GRADIENTS], variables)
    return [[round(-float(x), 3) + 0.0 for x in v.numpy()] for v in variables]


def main() -> None:
    """Print both."""
    for options in ({}, {"clipvalue": 2.0}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}):
        print(f"{options or 'no clipping'!s:26} {moved(**options)}")

    optimizer = ck.Optimizer("sgd", learning_rate=0.1)
    optimizer.configure_gradient_clipping(
        {"clip_method": "adaptive", "adaptive_clipping": {"percentile": 90, "history_length": 50}}
    )
    w, rng = keras.Variable(np.zeros(4, "float32")), np.random.default_rng(0)
    for update in range(60):
        size = 100.0 if update == 55 else 1.0  # one bad batch
        optimizer.apply([ops.array(size * rng.normal(size=4).astype("float32"))], [w])
        if update == 55:
            record = optimizer.statistics()
            print(f"norm {record.gradient_norm:.0f} was clipped to {record.clip_threshold:.1f}")
    print(f"clipped: {optimizer.clipped_share():.0%} of the updates")


if __name__ == "__main__":
    main()

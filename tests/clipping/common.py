"""What the tests of clipping share: steps that show the clipped gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

import capibara_keras as ck
from tests.models import values

SEED = {
    "clip_method": "norm",
    "clip_value": 1.0,
    "adaptive_clipping": {
        "enable": True,
        "percentile": 10,
        "history_length": 1000,
        "min_clip_value": 0.1,
        "max_clip_value": 10.0,
    },
    "per_parameter_clipping": False,
    "clip_coeff": 0.01,
}
"""As in the founding document."""


def adaptive(**options: Any) -> dict[str, Any]:
    return {"clip_method": "adaptive", "adaptive_clipping": options}


def sgd(*configurations: dict[str, Any], **options: Any) -> ck.Optimizer:
    """An optimizer whose step is the clipped gradient, negated; without XLA, whose compiler takes most of the time."""
    optimizer = ck.Optimizer("sgd", 1.0, **({"jit_compile": False} | options))
    for configuration in configurations:
        optimizer.configure_gradient_clipping(configuration)
    return optimizer


def step(optimizer: Any, *grads: Any, at: Sequence[keras.Variable] | None = None) -> list[np.ndarray]:
    """What became of gradients in an update of variables that begin at zero (`at`: at what they are)."""
    zeros = at is None
    ws = [keras.Variable(np.zeros_like(g, "float32")) for g in grads] if at is None else list(at)
    if zeros and optimizer.built:
        ws = optimizer._trainable_variables
        for w in ws:
            w.assign(ops.zeros_like(w))
    before = values(ws)
    optimizer.apply([ops.convert_to_tensor(g, "float32") for g in grads], ws)
    return [b - a for b, a in zip(before, values(ws), strict=True)]


def norms(optimizer: Any, series: Sequence[float]) -> list[float]:
    """Norms after clipping, of a series of gradients of one entry."""
    return [abs(step(optimizer, np.array([x]))[0].item()) for x in series]

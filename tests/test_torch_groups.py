"""Parameter groups: the numbers of torch's."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np

import capibara_keras as ck

REFERENCE = json.loads((Path(__file__).parent / "data" / "torch_groups.json").read_text())


def test_adamw_with_groups_equals_torch() -> None:
    """20 updates: a rate and a decay for each group, one global norm over all of them."""
    variables = {
        name: keras.Variable(np.array(start, "float32"), name=name) for name, start in REFERENCE["start"].items()
    }
    optimizer = ck.Optimizer(
        "adamw",
        learning_rate=REFERENCE["learning_rate"],
        epsilon=REFERENCE["epsilon"],
        global_clipnorm=REFERENCE["clip"],
        weight_decay=0.1,
        groups=[{"pattern": name, **options} for name, options in REFERENCE["groups"].items()],
    )
    for gradients in REFERENCE["gradients"]:
        optimizer.step({k: keras.ops.array(g, "float32") for k, g in gradients.items()}, variables)
    for name, expected in REFERENCE["after 20 updates"].items():
        np.testing.assert_allclose(variables[name].numpy(), expected, atol=1e-6)

"""Lowers a whole train step for a TPU, on a machine without one. Prints JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np
from jax import export

import capibara_keras as ck

schedule = ck.schedules.CosineWithWarmup(1e-3, 100, 5, cosine_restarts=True, restart_period=20, restart_decay=0.8)
CASES = {
    "clip": ck.AdamW(1e-3, global_clipnorm=1.0),
    "unit-wise": ck.SGD(1e-3, momentum=0.9, clip_method="agc"),
    "everything": ck.AdamW(
        schedule,
        clip_method="adaptive",
        per_parameter_clipping=True,
        skip_spikes=6.0,
        use_ema=True,
        ema_overwrite_frequency=4,
        gradient_accumulation_steps=4,
        nonfinite="drop_micro_batch",
        groups=[{"pattern": "re:bias", "algorithm": "sgd", "momentum": 0.9}],
    ),
}


def program(optimizer: Any, through: Callable[[Any], Any] | None = None) -> str:
    """The module of a train step, lowered for a TPU; gradients go `through` a function."""
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)])
    optimizer.build(model.trainable_variables)

    def step(weights: list[Any], state: list[Any], x: Any) -> Any:
        def loss(weights: list[Any]) -> Any:
            return (model.stateless_call(weights, [], x)[0] ** 2).mean()

        grads = jax.grad(loss)(weights)
        return optimizer.stateless_apply(state, [through(g) for g in grads] if through else grads, weights)

    def shapes(variables: list[Any]) -> list[Any]:
        return [jax.ShapeDtypeStruct(v.shape, v.value.dtype) for v in variables]

    x = jax.ShapeDtypeStruct((4, 8), "float32")
    arguments = shapes(model.trainable_variables), shapes(optimizer.variables), x
    return export.export(jax.jit(step), platforms=["tpu"])(*arguments).mlir_module()


def callback(g: Any) -> Any:
    """A detour over the host."""
    return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct(g.shape, g.dtype), g)


cases = {}
for name, optimizer in CASES.items():
    text = program(optimizer)
    cases[name] = {
        "custom_call": text.count("custom_call"),
        "i64": len(re.findall(r"tensor<[^>]*i64", text)),
        "f64": len(re.findall(r"tensor<[^>]*f64", text)),
    }
try:
    outcome = "lowered" if "custom_call" not in program(ck.SGD(1e-3), callback) else "custom_call"
except ValueError:
    outcome = "refused"
print(json.dumps({"cases": cases, "callback": outcome}))

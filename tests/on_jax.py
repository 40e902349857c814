"""A program for tests/test_jax.py: trains with the active backend, and prints what came of it as JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

import capibara_keras as ck
from capibara_keras.schedules import LinearWithWarmup
from tests.models import line, regression, regressor, values, variables


def fitted(optimizer: Any, *callbacks: keras.callbacks.Callback, fits: int = 1) -> dict[str, Any]:
    model = regressor(optimizer)
    for _ in range(fits):
        history = model.fit(
            *regression(), batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=list(callbacks)
        ).history
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    weights = [w.tolist() for w in values(model)]
    return {"weights": weights, "iterations": int(inner.iterations), "history": history}


def schedule() -> LinearWithWarmup:
    return LinearWithWarmup(0.05, total_steps=20, warmup_steps=2)


FITS: dict[str, Callable[[], dict[str, Any]]] = {
    "adamw, schedule, clip": lambda: fitted(
        ck.AdamW(schedule(), epsilon=1e-3, weight_decay=0.1, amsgrad=True, global_clipnorm=0.5)
    ),
    "sgd, window, average overwrites": lambda: fitted(
        ck.SGD(
            0.05,
            momentum=0.9,
            gradient_accumulation_steps=2,
            use_ema=True,
            ema_overwrite_frequency=2,
            jit_compile=False,
        )
    ),
    "inside LossScaleOptimizer": lambda: fitted(
        keras.optimizers.LossScaleOptimizer(
            ck.SGD(0.05, gradient_accumulation_steps=2, jit_compile=False), dynamic_growth_steps=3
        )
    ),
    "two points, two fits": lambda: fitted(ck.ScheduleFreeAdamW(0.05), fits=2),
    "remainder": lambda: fitted(ck.SGD(0.05, gradient_accumulation_steps=5, jit_compile=False), ck.Attach()),
    "total from fit, logs": lambda: fitted(
        ck.SGD(0.05, scheduler_type="cosine_with_warmup", warmup_ratio=0.25), ck.LogStatistics()
    ),
    "plateau on top of a schedule": lambda: fitted(
        ck.SGD(schedule()),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(same=1.0)),
        keras.callbacks.ReduceLROnPlateau(monitor="same", mode="min", factor=0.5, patience=1),
        ck.LogStatistics(),
    ),
}


def stateless() -> dict[str, Any]:
    """The largest difference between `stateless_apply` under `jax.jit` and `apply`, and what the first left alone."""
    import jax

    rng = np.random.default_rng(0)
    steps = [[rng.normal(size=s).astype("float32") for s in ((2, 3), (3,))] for _ in range(5)]
    steps[1][0][0, 0] = np.nan
    options: dict[str, Any] = dict(weight_decay=0.1, global_clipnorm=0.5, gradient_accumulation_steps=2, use_ema=True)
    first, second = ck.AdamW(schedule(), **options), ck.AdamW(schedule(), **options)
    ws, others = variables((2, 3), (3,)), variables((2, 3), (3,))
    first.build(ws)
    before = values(ws) + values(first)
    state = [v.value for v in first.variables]
    tensors = [w.value for w in ws]
    step = jax.jit(first.stateless_apply)
    for grads in steps:
        tensors, state = step(state, [ops.array(g) for g in grads], tensors)
        second.apply([ops.array(g) for g in grads], others)
    found, expected = [np.asarray(x) for x in [*tensors, *state]], values(others) + values(second)
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, values(ws) + values(first), strict=True))
    gap = max(np.nanmax(np.abs(a.astype("float64") - b)) for a, b in zip(found, expected, strict=True))
    return {"gap": float(gap), "untouched": same, "compilations": step._cache_size(), "updates": int(second.iterations)}


def raises() -> str:
    """What `nonfinite="raise"` says in `fit`, and the weight then."""
    y = np.ones((12, 1), "float32")
    y[4] = np.nan
    model = line(ck.SGD(1.0, nonfinite="raise"))
    try:
        model.fit(y * 0 + 1, y, batch_size=3, shuffle=False, verbose=0, callbacks=[ck.Attach()])
    except FloatingPointError as error:
        return f"{error} ({values(model)[0].item()})"
    return "nothing"


def refused() -> list[str]:
    """What `stateless_apply` says of a gradient of another shape while tracing, and of a layer that was unfrozen."""
    import jax

    optimizer, ws = ck.SGD(), variables((2, 3), (3,))
    optimizer.build(ws)
    state, tensors = [v.value for v in optimizer.variables], [w.value for w in ws]
    messages = []
    for grads, given in ((tensors[::-1], tensors), ([*tensors, ops.ones(1)], [*tensors, ops.ones(1)])):
        try:
            jax.jit(optimizer.stateless_apply)(state, grads, given)
        except ck.ConfigError as error:
            messages.append(str(error))
    return messages


def low_precision() -> dict[str, Any]:
    """Weights after updates with state in few bits; and a bfloat16 weight after 100 steps of 0.001 from 1."""
    rng = np.random.default_rng(0)
    start, *grads = rng.normal(size=(7, 64, 80)).astype("float32")
    found: dict[str, Any] = {}
    for name, precision in (("adamw", "8bit"), ("lion", "8bit"), ("adamw", "bfloat16")):
        w, optimizer = keras.Variable(start), ck.Optimizer(name, state_precision=precision, learning_rate=0.01)
        for g in grads:
            optimizer.apply([ops.array(g)], [w])
        found[f"{name}, {precision}"] = ops.convert_to_numpy(w).tolist()
    for kahan in (True, False):
        w, optimizer = keras.Variable([1.0], dtype="bfloat16"), ck.SGD(0.001, kahan_summation=kahan)
        for _ in range(100):
            optimizer.apply([ops.ones((1,), "bfloat16")], [w])
        found["kahan" if kahan else "plain"] = float(ops.convert_to_numpy(ops.cast(w, "float32"))[0])
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {name: fit() for name, fit in FITS.items()}
    result |= {"stateless": stateless(), "raises": raises(), "refused": refused()}
    result |= {"low precision": low_precision()}
    print(json.dumps(result))

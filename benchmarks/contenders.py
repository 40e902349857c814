"""The steps that are measured, by the framework that each needs. Each is a function without arguments."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shapes import Shape, size

Steps = dict[str, Callable[[], Any]]

SCALE, NOISE = 0.02, 1e-3
"""Standard deviations of weights and gradients."""


def arrays(shapes: list[Shape], scale: float) -> list[np.ndarray]:
    """Normal numbers, the same for all."""
    rng = np.random.default_rng(0)
    return [(scale * rng.standard_normal(shape, np.float32)).astype(np.float32) for shape in shapes]


# TensorFlow ------------------------------------------------------------------------------------------------


def tensorflow_optimizers() -> dict[str, Callable[[], Any]]:
    """Name -> optimizer."""
    import keras

    import capibara_keras as ck

    return {
        "keras adam": keras.optimizers.Adam,
        "keras adamw+clip": lambda: keras.optimizers.AdamW(global_clipnorm=1.0),
        "ours adamw": ck.AdamW,
        "ours adamw+clip": lambda: ck.AdamW(global_clipnorm=1.0),
        "ours adamw+clip, norms": lambda: ck.AdamW(global_clipnorm=1.0, statistics_every=1),
        "ours adamw+clip, norms/10": lambda: ck.AdamW(global_clipnorm=1.0, statistics_every=10),
        "ours adamw+clip, 8bit": lambda: ck.AdamW(global_clipnorm=1.0, state_precision="8bit"),
        "ours adamw+clip, bfloat16": lambda: ck.AdamW(global_clipnorm=1.0, state_precision="bfloat16"),
        "keras adamw+clip, accumulate 4": lambda: keras.optimizers.AdamW(
            global_clipnorm=1.0, gradient_accumulation_steps=4
        ),
        "ours adamw+clip, accumulate 4": lambda: ck.AdamW(global_clipnorm=1.0, gradient_accumulation_steps=4),
    }


def tensorflow(shapes: list[Shape], names: list[str]) -> Steps:
    """Names as in `tensorflow_optimizers`, with " xla", " graph" (uncompiled function) or " eager" behind."""
    import keras
    import tensorflow as tf

    grads = [tf.constant(g) for g in arrays(shapes, NOISE)]
    steps: Steps = {}
    for name in names:
        kind, how = name.rsplit(" ", 1)
        optimizer = tensorflow_optimizers()[kind]()
        variables = [keras.Variable(w) for w in arrays(shapes, SCALE)]
        optimizer.build(variables)
        step = partial(optimizer.apply, grads, variables)
        steps[name] = step if how == "eager" else tf.function(step, jit_compile=how == "xla", autograph=False)
    return steps


def tensorflow_first(shapes: list[Shape], name: str) -> dict[str, float]:
    """Seconds until the first step is done, and operations in its graph (nested functions counted once)."""
    import time

    import keras
    import tensorflow as tf

    kind, how = name.rsplit(" ", 1)
    grads = [tf.constant(g) for g in arrays(shapes, NOISE)]
    optimizer = tensorflow_optimizers()[kind]()
    variables = [keras.Variable(w) for w in arrays(shapes, SCALE)]
    tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1.0))  # the compiler itself is ready
    start = time.perf_counter()
    optimizer.build(variables)
    function = tf.function(lambda *g: optimizer.apply(list(g), variables), jit_compile=how == "xla", autograph=False)
    function(*grads)
    seconds = time.perf_counter() - start
    graph = function.get_concrete_function(*grads).graph.as_graph_def()
    return {"seconds": seconds, "operations": len(graph.node) + sum(len(f.node_def) for f in graph.library.function)}


# JAX -------------------------------------------------------------------------------------------------------


def jax(shapes: list[Shape], names: list[str]) -> Steps:
    """One jitted step with donated weights and state."""
    import jax
    import jax.numpy as jnp
    import keras
    import optax

    import capibara_keras as ck

    grads = [jnp.asarray(g) for g in arrays(shapes, NOISE)]

    def with_optax(transformation: Any) -> Callable[[], Any]:
        params = [jnp.asarray(w) for w in arrays(shapes, SCALE)]
        state = transformation.init(params)

        def update(params: Any, state: Any, grads: Any) -> Any:
            updates, state = transformation.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return repeated(jax.jit(update, donate_argnums=(0, 1)), (params, state), grads)

    def with_keras(optimizer: Any) -> Callable[[], Any]:
        variables = [keras.Variable(w) for w in arrays(shapes, SCALE)]
        optimizer.build(variables)
        state = ([jnp.copy(v.value) for v in variables], [jnp.copy(v.value) for v in optimizer.variables])

        def update(params: Any, state: Any, grads: Any) -> Any:
            return optimizer.stateless_apply(state, grads, params)

        return repeated(jax.jit(update, donate_argnums=(0, 1)), state, grads)

    def copy() -> Callable[[], Any]:
        """A pass that reads and writes as many bytes as a copy of all parameters: for the memory's bandwidth."""
        params = [jnp.asarray(w) for w in arrays(shapes, SCALE)]
        return repeated(jax.jit(lambda p, s, g: ([x + 1 for x in p], s), donate_argnums=0), (params, []), [])

    def repeated(update: Callable[..., Any], state: Any, grads: Any) -> Callable[[], Any]:
        box = [state]

        def step() -> None:
            box[0] = jax.block_until_ready(tuple(update(*box[0], grads)))

        return step

    known: dict[str, Callable[[], Any]] = {
        "copy": copy,
        "optax adamw": lambda: with_optax(optax.adamw(1e-3)),
        "optax adamw+clip": lambda: with_optax(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))),
        "keras adamw+clip": lambda: with_keras(keras.optimizers.AdamW(global_clipnorm=1.0)),
        "ours adamw": lambda: with_keras(ck.AdamW()),
        "ours adamw+clip": lambda: with_keras(ck.AdamW(global_clipnorm=1.0)),
        "ours adamw+clip, norms": lambda: with_keras(ck.AdamW(global_clipnorm=1.0, statistics_every=1)),
        "ours adamw+clip, norms/10": lambda: with_keras(ck.AdamW(global_clipnorm=1.0, statistics_every=10)),
    }
    return {name: known[name]() for name in names}


# torch -----------------------------------------------------------------------------------------------------


def torch(shapes: list[Shape], names: list[str]) -> Steps:
    """`AdamW(fused=True)`, with or without `clip_grad_norm_`."""
    import torch

    torch.set_num_threads(2)

    def step(clip: bool) -> Callable[[], Any]:
        params = [torch.nn.Parameter(torch.from_numpy(w)) for w in arrays(shapes, SCALE)]
        for p, g in zip(params, arrays(shapes, NOISE), strict=True):
            p.grad = torch.from_numpy(g)
        optimizer = torch.optim.AdamW(params, fused=True)

        def update() -> None:
            if clip:
                torch.nn.utils.clip_grad_norm_(params, 1.0)
            optimizer.step()

        return update

    return {name: step("clip" in name) for name in names}


# The floor -------------------------------------------------------------------------------------------------

SOURCE = r"""
#include <math.h>
double squares(const float *x, long n) {
  double total = 0;
  #pragma omp parallel for reduction(+:total) schedule(static)
  for (long b = 0; b < (n + 4095) / 4096; b++) {
    long end = (b + 1) * 4096 < n ? (b + 1) * 4096 : n;
    float part = 0;
    #pragma omp simd reduction(+:part)
    for (long i = b * 4096; i < end; i++) part += x[i] * x[i];
    total += part;
  }
  return total;
}
void adamw(const float *g, float *p, float *m, float *v, long n, float rate, float decay, float scale) {
  #pragma omp parallel for simd schedule(static)
  for (long i = 0; i < n; i++) {
    float gi = g[i] * scale;
    float mi = 0.9f * m[i] + 0.1f * gi, vi = 0.999f * v[i] + 0.001f * gi * gi;
    m[i] = mi; v[i] = vi;
    p[i] -= rate * (mi / (sqrtf(vi) + 1e-7f) + decay * p[i]);
  }
}
"""


def floor(shapes: list[Shape], names: list[str]) -> Steps:
    """A sum of squares and one AdamW pass in C over one flat array: the least that this machine needs."""
    n = size(shapes)
    memory = [np.random.default_rng(i).standard_normal(n, np.float32) ** 2 for i in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "floor.c", Path(folder) / "floor.so"
        source.write_text(SOURCE)
        flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, str(source), "-o", str(library), "-lm"], check=True)
        c = ctypes.CDLL(str(library))
    c.squares.restype = ctypes.c_double
    pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in memory]
    rate, decay = ctypes.c_float(1e-3), ctypes.c_float(4e-3)

    def step() -> None:
        norm = c.squares(pointers[0], ctypes.c_long(n)) ** 0.5
        c.adamw(*pointers, ctypes.c_long(n), rate, decay, ctypes.c_float(min(1.0, 1.0 / norm)))

    step.memory = memory  # type: ignore[attr-defined]
    return {"c adamw+clip": step}


FAMILIES: dict[str, Callable[[list[Shape], list[str]], Steps]] = {
    "tensorflow": tensorflow,
    "jax": jax,
    "torch": torch,
    "floor": floor,
}
"""One process each: frameworks do not share one well."""

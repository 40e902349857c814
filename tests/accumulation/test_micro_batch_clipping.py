"""Clipping each micro-batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from keras import ops

from tests.accumulation.common import scalar, sgd
from tests.models import values, variables


def clipped(gradients: Sequence[np.ndarray], kind: str, limit: float) -> list[np.ndarray]:
    """A micro-batch's gradients after clipping, in float64."""
    gs = [g.astype("float64") for g in gradients]
    if kind == "clipvalue":
        return [np.clip(g, -limit, limit) for g in gs]
    norms = [np.linalg.norm(g) for g in gs]
    if kind == "global_clipnorm":
        norms = [np.linalg.norm(norms)] * len(gs)
    return [g * min(1.0, limit / n) for g, n in zip(gs, norms, strict=True)]


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize(
    ("kind", "normalize"),
    [("global_clipnorm", True), ("global_clipnorm", False), ("clipnorm", True), ("clipvalue", True)],
)
def test_clipping_before_accumulating(kind: str, normalize: bool, divided: bool) -> None:
    """Each micro-gradient at its true scale, then their mean, or sum (a third of it, where the loss was divided by
    3): 5 windows of 3 and a rest of 2."""
    rng = np.random.default_rng(0)
    micro = [[s * rng.normal(size=(3, 2)), s * rng.normal(size=2)] for s in 10 ** rng.uniform(-1, 1, 17)]
    options = {kind: 1.0, "normalize_gradients": normalize, "loss_divided": divided}
    optimizer = sgd(3, rate=0.1, defer_clip_until_accumulation=False, **options)
    ws = variables((3, 2), (2,))
    expected = [w.astype("float64") for w in values(ws)]
    for grads in micro:
        factor = 1 / 3 if divided else 1.0  # as the loss arrives
        optimizer.apply([ops.convert_to_tensor(factor * g, "float32") for g in grads], ws)
    optimizer.flush()
    for i in range(0, 17, 3):
        window = [clipped(g, kind, 1.0) for g in micro[i : i + 3]]
        for w, gs in zip(expected, zip(*window, strict=True), strict=True):
            w -= 0.1 * sum(gs) / (len(window) if normalize else 3.0 if divided else 1.0)
    for found, w in zip(values(ws), expected, strict=True):
        np.testing.assert_allclose(found, w, rtol=0, atol=2e-6)
    assert int(optimizer.iterations) == 6


def test_clipping_micro_batches_differs_from_clipping_their_mean() -> None:
    """3 and -1 with limit 1: clipped first, they cancel out; their mean is 1."""
    assert scalar(sgd(2, global_clipnorm=1.0, defer_clip_until_accumulation=False), 3.0, -1.0) == 0.0
    assert scalar(sgd(2, global_clipnorm=1.0), 3.0, -1.0) == -1.0


def test_clipping_micro_batches_adaptively() -> None:
    """The history is of micro-batches: medians of 2; 2, 4; 2, 4, 6; 2, 4, 6, 8."""
    options = {"clip_method": "adaptive", "adaptive_clipping": {"percentile": 50}}
    optimizer = sgd(2, defer_clip_until_accumulation=False, **options)
    assert scalar(optimizer, 2.0, 4.0, 6.0, 8.0) == pytest.approx(-(2 + 3) / 2 - (4 + 5) / 2)


def test_a_bad_micro_batch_is_left_out_of_the_history_too() -> None:
    options = {"clip_method": "adaptive", "adaptive_clipping": {"percentile": 50}, "nonfinite": "drop_micro_batch"}
    optimizer = sgd(2, defer_clip_until_accumulation=False, **options)
    assert scalar(optimizer, 2.0, np.inf, 4.0, np.nan, 6.0, 8.0) == pytest.approx(-(2 + 3) / 2 - (4 + 5) / 2)


@pytest.mark.parametrize("kind", ["global_clipnorm", "clipnorm", "clipvalue"])
def test_an_infinite_micro_gradient_skips_its_window(kind: str) -> None:
    """Clipping it by value would make it look finite."""
    optimizer = sgd(2, defer_clip_until_accumulation=False, **{kind: 1.0})
    assert scalar(optimizer, np.inf, 0.5, 0.5, 0.5) == -0.5
    assert optimizer.counters()["skipped"] == 1

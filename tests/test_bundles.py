"""Models with many variables are compiled in bundles: the same numbers as in one piece."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from capibara_keras.backend.bundles import bundles

SHAPES = [(7, 3), *[(3, 3), (3, 5), (5,), (3,)] * 9, (5, 2, 2)]
"""An embedding, nine layers alike and a head: 38 variables."""

OPTIONS: dict[str, dict[str, Any]] = {
    "norm": {"global_clipnorm": 0.5},
    "each": {"clipnorm": 0.2, "use_ema": True, "ema_overwrite_frequency": 3},
    "value": {"clipvalue": 0.1, "maximize": True},
    "agc": {"clip_method": "agc", "clip_coeff": 0.05, "layer_wise_lr_decay": 0.9},
    "adaptive": {"clip_method": "adaptive", "per_parameter_clipping": True},
    "accumulation": {"gradient_accumulation_steps": 2, "global_clipnorm": 0.5},
    "micro-batches": {"gradient_accumulation_steps": 2, "clipnorm": 0.2, "defer_clip_until_accumulation": False},
    "groups": {"groups": [{"pattern": "v1", "algorithm": "sgd", "momentum": 0.9, "clipnorm": 0.1}]},
    "statistics": {"statistics_every": 2, "weight_decay_exclude": ["v3"]},
}


def trained(
    monkeypatch: pytest.MonkeyPatch, whole: int, options: dict[str, Any]
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Weights and statistics after six micro-batches; the third has no gradient for two variables, the fifth a NaN."""
    monkeypatch.setattr("capibara_keras.backend.live.WHOLE", whole)
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=shape), name=f"v{i}") for i, shape in enumerate(SHAPES)]
    optimizer = ck.AdamW(1e-2, weight_decay=0.1, **options)
    for step in range(6):
        grads: list[Any] = [ops.convert_to_tensor(rng.normal(size=shape), "float32") for shape in SHAPES]
        if step == 2:
            grads[0] = grads[5] = None
        if step == 4:
            grads[7] = grads[7] * float("nan")
        optimizer.apply(grads, variables)
    recent = optimizer.recent_updates()
    norms = {name: norms for name, norms in recent.variable_norms.items()}
    return [ops.convert_to_numpy(v) for v in variables], recent.statistics | norms


@pytest.mark.slow  # every test of a model of more than 32 variables also runs in bundles
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.filterwarnings("ignore:Gradients do not exist", "ignore:.*do not fill a window")
def test_the_same_numbers_as_in_one_piece(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, in_bundles = (trained(monkeypatch, size, OPTIONS[name]) for size in (len(SHAPES), 4))
    for one, other in zip(whole[0], in_bundles[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    for key, values in whole[1].items():
        np.testing.assert_allclose(values, in_bundles[1][key], rtol=1e-6, err_msg=key)


def test_layers_alike_share_their_code() -> None:
    found = bundles(SHAPES)
    assert sorted(i for part in found for i in part) == list(range(len(SHAPES)))
    kinds = [tuple(SHAPES[i] for i in part) for part in found]
    assert len(found) == 10 and len(set(kinds)) == 2 and len(kinds[-1]) == 2


def test_what_never_repeats_is_one_bundle() -> None:
    assert bundles(["a", "b", "c"]) == [[0, 1, 2]]
    assert bundles([]) == []

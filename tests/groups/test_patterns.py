"""Which variables a pattern means."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from keras import ops

import capibara_keras as ck
from tests.groups.common import named, nested, rates
from tests.models import regression, regressor, values

PATHS = [
    "model/embedding/embeddings",
    "model/encoder/head/kernel",
    "model/encoder_1/multi_head_attention/query/kernel",
    "model/encoder_10/dense_2/kernel",
    "model/head/kernel",
    "model/head_1/bias",
    "model/header/kernel",
]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("head", [1, 4, 5]),  # not multi_head_attention, not header
        ("head_1", [5]),
        ("encoder", [1, 2, 3]),
        ("encoder_1", [2]),  # not encoder_10
        ("encoder/head", [1]),
        ("head/kernel", [1, 4]),
        ("head/bias", [5]),
        ("encoder/dense/kernel", [3]),
        ("encoder/kernel", []),  # in a row
        ("dense", [3]),
        ("kernel", [1, 2, 3, 4, 6]),
        ("model", [0, 1, 2, 3, 4, 5, 6]),
        ("Head", []),
        ("he.d", []),
        ("/head/", [1, 4, 5]),
        ("re:head", [1, 2, 4, 5, 6]),
        ("re:head/kernel$", [1, 4]),
        ("re:encoder(_1)?/", [1, 2]),
        ("re:^model/head", [4, 5, 6]),
        ("re:.*", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.filterwarnings("ignore:patterns that match no variable")
def test_patterns(pattern: str, matching: list[int]) -> None:
    """A word is a whole segment, with or without a number; words joined by "/" are segments in a row; `re:` is free."""
    found = rates(named(*PATHS), differential_learning_rates={pattern: 2.0})
    assert [i for i, rate in enumerate(found.values()) if rate == 2.0] == matching
    assert all(rate in (1.0, 2.0) for rate in found.values())


def test_the_first_match_wins() -> None:
    differential = {"head/bias": 5.0, "head": 2.0, "re:.": 3.0}
    assert list(rates(named(*PATHS), differential_learning_rates=differential).values()) == [3, 2, 3, 3, 2, 5, 3]


def test_the_rates_of_the_document() -> None:
    """Fine-tuning: layer-wise decay times differential rates, for a model of two encoder blocks."""
    options = {
        "algorithm": "adam",
        "learning_rate": 5e-5,
        "layer_wise_lr_decay": 0.95,
        "differential_learning_rates": {"embedding": 0.1, "encoder": 1.0, "head": 2.0},
    }
    parts = ("attention/kernel", "attention/bias", "dense/kernel", "dense/bias")
    paths = [
        "embedding/embeddings",
        *(f"encoder/{p}" for p in parts),
        *(f"encoder_1/{p}" for p in parts),
        "head/kernel",
    ]
    optimizer = ck.Optimizer(jit_compile=False, **options)
    ws = named(*paths, shape=(2, 2))
    optimizer.build(ws)
    found = [row.rate for row in optimizer.describe(print_fn=lambda text: None)]
    expected = [0.1 * 0.95**3, *[0.95**2] * 4, *[0.95] * 4, 2.0]
    assert found == pytest.approx(expected)
    before = values(ws)
    optimizer.apply([ops.ones(w.shape) for w in ws], ws)  # Adam's first step is the rate
    for old, w, factor in zip(before, values(ws), expected, strict=True):
        np.testing.assert_allclose(old - w, 5e-5 * factor, rtol=2e-2)  # the weights' rounding is 1e-7


def test_a_rate_of_zero_freezes_a_variable() -> None:
    """Decay included, bit for bit."""
    ws = named("a/kernel", "b/kernel")
    optimizer = ck.Optimizer("adamw", 0.1, weight_decay=0.1, differential_learning_rates={"a": 0}, jit_compile=False)
    before = values(ws)
    for _ in range(3):
        optimizer.apply([ops.ones(2), ops.ones(2)], ws)
    assert ws[0].numpy().tobytes() == before[0].tobytes()
    assert (np.abs(ws[1].numpy() - before[1]) > 0.2).all()


@pytest.mark.parametrize(
    "options",
    [
        {"differential_learning_rates": {"head": 2.0, "haed": 3.0}},
        {"groups": [{"pattern": "haed", "rate": 3.0}]},
        {"layer_wise_lr_decay": 0.9, "layer_depths": {"embedding": 0, "haed": 1}},
        {"weight_decay": 0.1, "weight_decay_exclude": ["haed", "rank<=1"]},
    ],
)
def test_a_pattern_that_matches_nothing_is_named(options: dict[str, Any]) -> None:
    meant = r"(weight_decay_exclude=)?'haed' \(did you mean 'head', as in model/encoder/head/kernel\?\)"
    with pytest.warns(UserWarning, match=rf"patterns that match no variable: {meant}\. Variables: model/embedding"):
        rates(named(*PATHS), **options)


@pytest.mark.parametrize(
    ("patterns", "named_as"),
    [
        (["biass", "rank<=1"], "='biass' (did you mean 'bias', as in model/head_1/bias?)"),
        (["^model/head_2/bias$"], "='^model/head_2/bias$' (did you mean 'model/head_1/bias'?)"),
        (["xyz"], "='xyz'. Variables:"),
        (["rank<=1", "(?i)BIAS|norm"], None),
    ],
)
def test_an_exclusion_from_decay_that_matches_nothing_is_named(patterns: list[str], named_as: str | None) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        rates(named(*PATHS), weight_decay=0.1, weight_decay_exclude=patterns)
    texts = [str(warning.message) for warning in caught]
    assert [f"weight_decay_exclude{named_as}" in text for text in texts] == [True] * (named_as is not None)


def test_a_warning_is_about_the_line_that_calls_fit() -> None:
    """Not about one of this package's, or of Keras', in between."""
    model = regressor(ck.SGD(0.1, differential_learning_rates={"haed": 3.0}))
    with pytest.warns(UserWarning, match="patterns that match no variable") as caught:
        model.fit(*regression(), batch_size=64, verbose=0)
    assert [w.filename for w in caught if "patterns" in str(w.message)] == [__file__]


@pytest.mark.parametrize("decay", [{"weight_decay": 0.1, "weight_decay_exclude": ["LayerNorm", "bias"]}, {}])
def test_exclusions_may_be_a_usual_list(decay: dict[str, Any]) -> None:
    """Of which one matches; and without decay they do not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rates(named(*PATHS), **({"weight_decay_exclude": ["haed"]} | decay))


def test_patterns_for_frozen_layers_are_no_mistake() -> None:
    """Where the model is known; they will match when the layers are unfrozen."""
    model = nested()
    model.layers[1].trainable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rates(model.trainable_variables, model, differential_learning_rates={"l1": 0.5, "head": 2.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"differential_learning_rates": {"a": -1.0}}, r"differential_learning_rates\['a'\]: expected a number >= 0"),
        ({"differential_learning_rates": {"a": "2"}}, r"differential_learning_rates\['a'\]: expected a number >= 0"),
        ({"differential_learning_rates": {"": 2.0}}, "expected a part of a variable's path"),
        ({"differential_learning_rates": {3: 2.0}}, "expected a part of a variable's path"),
        ({"differential_learning_rates": {"re:(": 2.0}}, r"'re:\(' is not a regular expression"),
        ({"differential_learning_rates": [1.0]}, "differential_learning_rates: expected a dictionary"),
        ({"layer_wise_lr_decay": 0.0}, r"layer_wise_lr_decay: expected a number in \(0, 1\], received 0.0"),
        ({"layer_wise_lr_decay": 1.5}, r"layer_wise_lr_decay: expected a number in \(0, 1\], received 1.5"),
        ({"layer_depths": {"a": -1}}, r"layer_depths\['a'\]: expected a whole number >= 0, received -1"),
        ({"layer_depths": 3}, "layer_depths: expected a dictionary"),
        ({"groups": [{"rate": 2.0}]}, "groups: expected dictionaries with a 'pattern'"),
        ({"groups": [{"pattern": "a", "rat": 2.0}]}, "option of group 'a' 'rat'. Did you mean 'rate'"),
        ({"groups": [{"pattern": "a", "rate": -2.0}]}, "rate: expected a number >= 0, received -2.0"),
        ({"groups": [{"pattern": "a", "weight_decay": -2.0}]}, "weight_decay: expected a number >= 0, received -2.0"),
        ({"groups": [{"pattern": "a", "algorithm": "adma"}]}, "unknown algorithm 'adma'. Did you mean 'adam"),
        ({"groups": [{"pattern": "a", "momentum": 0.9}]}, "option of group 'a' 'momentum'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ck.ConfigError, match=message):
        ck.Optimizer("adam", **options)

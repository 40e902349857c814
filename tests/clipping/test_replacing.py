"""One way of clipping replaces another; bad options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import capibara_keras as ck
from tests.clipping.common import SEED, adaptive, norms, sgd, step
from tests.models import variables
from tests.thinning import thinned


def described(optimizer: ck.Optimizer) -> str:
    """What `describe` prints."""
    lines: list[str] = []
    optimizer.describe(print_fn=lines.append)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (SEED, ["clip_coeff=0.01 has no effect: clip_method is 'adaptive'"]),
        (
            {"clip_method": "value", "clip_value": 0.5, "clip_coeff": 0.02, "per_parameter_clipping": False},
            ["clip_coeff=0.02 has no effect: clip_method is 'value'"],
        ),
        (
            {"clip_method": "norm", "clip_value": 0.5, "adaptive_clipping": {"enable": False, "percentile": 20}},
            ["adaptive_clipping={'enable': False, 'percentile': 20} has no effect: clip_method is 'norm'"],
        ),
        (
            {"clip_method": "agc", "clip_value": 0.5, "clip_coeff": 0.02},
            ["clip_value=0.5 has no effect: clip_method is 'agc'"],
        ),
        (adaptive(percentile=20), []),
    ],
)
def test_options_without_effect_are_kept_and_described(options: dict[str, Any], idle: list[str]) -> None:
    optimizer = sgd(options)
    optimizer.build(variables((2, 2), (2,)))
    for one in (optimizer, ck.Optimizer.from_config(optimizer.get_config())):
        assert {name: one.get_config()[name] for name in options} == options
    assert [line for line in described(optimizer).splitlines() if "no effect" in line] == idle


NORM, VALUE = {"clip_method": "norm", "clip_value": 2.0}, {"clip_method": "value", "clip_value": 0.5}


METHODS: dict[str, tuple[Callable[[ck.Optimizer], None], list[float]]] = {
    "global norm": (lambda o: o.configure_gradient_clipping(NORM), [1.2, 1.6]),
    "value": (lambda o: o.configure_gradient_clipping(VALUE), [0.5, 0.5]),
    "norm": (lambda o: o.configure_gradient_clipping(NORM | {"per_parameter_clipping": True}), [2.0, 2.0]),
    "adaptive": (lambda o: o.configure_gradient_clipping(adaptive(max_clip_value=2.5)), [1.5, 2.0]),
    "document": (lambda o: o.configure_gradient_clipping(SEED), [0.6, 0.8]),
    "agc": (lambda o: o.configure_gradient_clipping({"clip_method": "agc", "clip_output_layer": True}), [1e-5, 1e-5]),
    "nothing": (lambda o: o.configure_gradient_clipping({}), [3.0, 4.0]),
    "clip_value": (lambda o: setattr(o, "clip_value", 0.5), [0.3, 0.4]),
    "adaptive_clipping": (lambda o: setattr(o, "adaptive_clipping", {"enable": True, "max_clip_value": 2}), [1.2, 1.6]),
    "global_clipnorm": (lambda o: setattr(o, "global_clipnorm", 1.0), [0.6, 0.8]),
    "clipnorm": (lambda o: setattr(o, "clipnorm", 1.0), [1.0, 1.0]),
    "clipvalue": (lambda o: setattr(o, "clipvalue", 0.25), [0.25, 0.25]),
    "gradient_clip_norm": (lambda o: o.reconfigure({"gradient_clip_norm": 1.0}), [0.6, 0.8]),
}
"""Ways to choose a method -> what becomes of gradients 3 and 4, of norm 5, whatever there was before."""


@pytest.mark.parametrize("seed", thinned([0, 1, 2], 3))
def test_the_last_method_counts(seed: int) -> None:
    """One optimizer, by one method after the other, in random orders, updates between them."""
    optimizer = sgd(global_clipnorm=0.1)
    step(optimizer, [30.0], [40.0])
    for name in ["clip_value", *np.random.default_rng(seed).permutation(list(METHODS))]:
        change, expected = METHODS[name]
        if name in ("clip_value", "adaptive_clipping"):
            optimizer.global_clipnorm = 9.0  # these two go on with the rest of `configure_gradient_clipping`'s options
        change(optimizer)
        assert [x.item() for x in step(optimizer, [3.0], [4.0])] == pytest.approx(expected), name


@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize("first", ["global_clipnorm", "document", "value", "agc"])
def test_of_two_methods_the_last_is_in_the_config(first: str, second: str) -> None:
    """And the first is not; also before the first update."""
    optimizer, alone = sgd(), sgd()
    METHODS[first][0](optimizer)
    if second in ("clip_value", "adaptive_clipping"):
        optimizer.global_clipnorm = 9.0
    METHODS[second][0](optimizer)
    METHODS[second][0](alone)
    assert optimizer.get_config() == alone.get_config() | {"name": optimizer.name}
    assert ck.Optimizer.from_config(optimizer.get_config()).get_config() == optimizer.get_config()


def test_taking_a_limit_away_ends_clipping() -> None:
    optimizer = sgd(global_clipnorm=1.0)
    optimizer.global_clipnorm = None
    assert norms(optimizer, [5.0]) == [5.0]
    assert np.isnan(optimizer.statistics().clip_threshold)


def test_a_bad_change_changes_nothing() -> None:
    optimizer = sgd(VALUE)
    config = optimizer.get_config()
    with pytest.raises(ck.ConfigError):
        optimizer.configure_gradient_clipping({"clip_method": "norm", "clip_value": -1.0})
    assert optimizer.get_config() == config
    assert norms(optimizer, [3.0]) == [0.5]


def enabled(**options: Any) -> dict[str, Any]:
    return {"adaptive_clipping": {"enable": True} | options}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (enabled(percentile=101), r"percentile: expected a number in \[0, 100\], received 101"),
        (enabled(percentile=-1), r"percentile: expected a number in \[0, 100\], received -1"),
        (enabled(percentile="10"), r"percentile: expected a number in \[0, 100\], received '10'"),
        (enabled(history_length=1), "history_length: expected a whole number >= 2, received 1"),
        (enabled(history_length=2.5), "history_length: expected a whole number >= 2, received 2.5"),
        (enabled(min_clip_value=2.0, max_clip_value=1.0), r"min_clip_value=2.0 is above max_clip_value=1.0"),
        (enabled(min_clip_value=-1.0), "min_clip_value: expected a number >= 0, received -1.0"),
        (enabled(max_clip_value=0.0), "max_clip_value: expected a number > 0, received 0.0"),
        (enabled(percentle=10), "unknown adaptive_clipping 'percentle'. Did you mean 'percentile'"),
        ({"adaptive_clipping": {"enable": "yes"}}, "adaptive_clipping.enable: expected True or False, received 'yes'"),
        ({"adaptive_clipping": True}, "adaptive_clipping: expected a dictionary.* received True"),
        (adaptive(enable=False), "clip_method='adaptive' contradicts adaptive_clipping.enable=False"),
        ({"clip_methd": "norm"}, "unknown clipping option 'clip_methd'. Did you mean 'clip_method'"),
        ({"clip_method": "nrom", "clip_value": 1.0}, "unknown clip_method 'nrom'. Did you mean 'norm'"),
        ({"clip_method": "norm"}, "clip_method='norm' needs clip_value, a number > 0"),
        ({"clip_method": "value"}, "clip_method='value' needs clip_value, a number > 0"),
        ({"clip_method": "norm", "clip_value": 0}, "clip_value: expected a number > 0, received 0"),
        ({"clip_method": "norm", "clip_value": float("nan")}, "clip_value: expected a number > 0, received nan"),
        ({"clip_method": "agc", "clip_coeff": 0.0}, "clip_coeff: expected a number > 0, received 0.0"),
        ({"clip_method": "agc", "clip_output_layer": 1}, "clip_output_layer: expected True or False, received 1"),
        ({"clip_value": 1.0, "per_parameter_clipping": 1}, "per_parameter_clipping: expected True or False"),
        (NORM | {"clip_coeff": "x"}, "clip_coeff: expected a number > 0, received 'x'"),
        (NORM | {"adaptive_clipping": {"enable": False, "percentile": 1000}}, "percentile: expected a number in"),
        ({"clip_method": "agc", "clip_value": -1.0}, "clip_value: expected a number > 0, received -1.0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    """Refused by the call and by the constructor, also where they would have no effect."""
    with pytest.raises(ck.ConfigError, match=message):
        sgd(options)
    with pytest.raises(ck.ConfigError, match=message.replace("clipping option", "option")):
        ck.Optimizer("sgd", **options)


def test_whole_numbers_as_floats_are_taken() -> None:
    """As JSON may bring them."""
    assert norms(sgd(adaptive(percentile=50, history_length=2.0)), [2.0, 4.0, 6.0]) == pytest.approx([2.0, 3.0, 5.0])


def test_two_ways_at_once_are_refused() -> None:
    with pytest.raises(ck.ConfigError, match=r"clipnorm=1\.0 and clip_method='norm' and clip_value=1\.0 exclude"):
        ck.Optimizer("sgd", clipnorm=1.0, clip_method="norm", clip_value=1.0)


def test_adaptive_clipping_of_a_group_is_refused() -> None:
    with pytest.raises(ck.ConfigError, match="group 'a': adaptive clipping is for all variables, not for one group"):
        ck.Optimizer("sgd", groups=[{"pattern": "a", "clip_method": "adaptive"}])

"""Options of accumulation: bad ones, and those of the document."""

from __future__ import annotations

from typing import Any

import pytest

import capibara_keras as ck
from tests.accumulation.common import accumulation_config, normalised, sgd


@pytest.mark.parametrize("k", [0, -1, 1.5, "4", True, float("nan")])
def test_bad_numbers_of_micro_batches(k: Any) -> None:
    message = "gradient_accumulation_steps: expected a whole number >= 1, received"
    with pytest.raises(ck.ConfigError, match=message):
        sgd(k)
    with pytest.raises(ck.ConfigError, match=message):
        ck.Optimizer("sgd").configure_gradient_accumulation({"accumulation_steps": k})
    with pytest.raises(ck.ConfigError, match="accumulation_steps: expected a whole number >= 1, received"):
        ck.sync_batchnorm(normalised(), k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acumulation_steps": 2}, "option 'acumulation_steps'. Did you mean 'accumulation_steps'"),
        ({"clipnorm": 1.0}, "unknown accumulation option 'clipnorm'"),
        ({"remainder": "drop"}, "unknown remainder 'drop'. Allowed: carry, flush"),
        ({"nonfinite": "drop_microbatch"}, "Did you mean 'drop_micro_batch'"),
        ({"normalize_gradients": "yes"}, "normalize_gradients: expected True or False, received 'yes'"),
        ({"scale_loss": 1}, "loss_divided: expected True or False, received 1"),
        ({"defer_clip_until_accumulation": 0}, "defer_clip_until_accumulation: expected True or False, received 0"),
        ({"sync_batchnorm": None}, "sync_batchnorm: expected True or False, received None"),
        ({"accumulation_steps": 2, "gradient_accumulation_steps": 4}, "are the same option with different values"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    optimizer = ck.Optimizer("sgd")
    config = optimizer.get_config()
    with pytest.raises(ck.ConfigError, match=message):
        optimizer.configure_gradient_accumulation(options)
    assert optimizer.get_config() == config


def test_the_options_of_the_document_survive_the_config() -> None:
    optimizer = ck.Optimizer("adam")
    optimizer.configure_gradient_accumulation(accumulation_config)
    config = ck.Optimizer.from_config(optimizer.get_config()).get_config()
    assert config["gradient_accumulation_steps"] == 16
    assert config["normalize_gradients"] and config["sync_batchnorm"] and config["loss_divided"]
    assert config["defer_clip_until_accumulation"]

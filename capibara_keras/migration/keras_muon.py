"""Keras' Muon: which variables it gives to Adam, and at which rate and decay."""

from __future__ import annotations

import re
from typing import Any

from capibara_keras import errors
from capibara_keras.rules.muon import COEFFICIENTS
from capibara_keras.variables import path_of

__all__ = ["muon_options"]


def muon_options(optimizer: Any) -> dict[str, Any]:
    """Options for what Keras' Muon names otherwise.

    Adam's variables are a group. A built optimizer knows them: those of other than two axes too. Of one that is not
    built the embeddings and `exclude_layers` are known, and kernels of more than two axes get Muon.

    Raises:
        ConfigError: a scale or coefficients that Muon has not here.

    >>> import keras
    >>> muon_options(keras.optimizers.Muon(exclude_layers=["head"]))["groups"][0]["pattern"]
    're:(?i:embedding)|head'
    """
    if optimizer.rms_rate != 0.2:
        raise errors.ConfigError(
            f"from_keras: Muon scales steps with rms_rate=0.2 here, received rms_rate={optimizer.rms_rate!r}"
        )
    given = (optimizer.muon_a, optimizer.muon_b, optimizer.muon_c)
    if given != COEFFICIENTS:
        raise errors.ConfigError(f"from_keras: Muon has the coefficients {COEFFICIENTS} here, received {given}")
    pattern = _adam_pattern(optimizer)
    ratio = errors.number("adam_lr_ratio", optimizer.adam_lr_ratio, 0, open_low=True)
    decay = optimizer.adam_weight_decay
    group = {
        "pattern": pattern,
        "algorithm": "adamw",
        "beta_1": optimizer.adam_beta_1,
        "beta_2": optimizer.adam_beta_2,
        "epsilon": optimizer.epsilon,
        "rate": ratio,
        "weight_decay": (decay or 0.0) / ratio,  # Keras decays at the rate itself, not at Adam's
    }
    return {
        "newton_schulz_steps": optimizer.ns_steps,
        "adam_pattern": "",
        "beta_1": optimizer.adam_beta_1,
        "beta_2": optimizer.adam_beta_2,
        "groups": [group] if pattern else [],
    }


def _adam_pattern(optimizer: Any) -> str:
    if optimizer.built:
        paths = [path_of(v) for v in optimizer._trainable_variables if optimizer._should_use_adamw(v)]
        return f"re:^({'|'.join(map(re.escape, paths))})$" if paths else ""
    same = optimizer.adam_lr_ratio == 1 and optimizer.adam_weight_decay == optimizer.weight_decay
    if not same:
        raise errors.ConfigError(
            "from_keras: vectors have a rate or decay of their own (adam_lr_ratio, adam_weight_decay), and which these "
            "are is known only after `optimizer.build(model.trainable_variables)`: call it before"
        )
    known = ["(?i:embedding)"] * optimizer.exclude_embeddings + list(optimizer.exclude_layers)
    return f"re:{'|'.join(known)}" if known else ""

"""Random configurations: each builds, trains and survives its file, or fails with this package's own error."""

from __future__ import annotations

import json
import math
import time
import traceback
import warnings
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.reliability.common import Ledger

__all__ = ["run"]

PIECE = 50
"""Examples between two entries in the ledger."""

ANY: list[Any] = [
    None, True, False, 0, 1, 2, 3, 7, -1, 1e-3, 0.1, 0.5, 0.9, 1.0, 1.5, 100, 1e30, math.nan, math.inf, "", "x", "norm",
    "auto", [], [0.9, 0.99], {}, {"a": 1}, (1, 2), object(), b"x", [None], {"enable": True}, "cosine", "float16",
]  # fmt: skip
"""Given to every option."""

FITTING: dict[str, list[Any]] = {
    "clip_method": ["norm", "value", "adaptive", "agc"],
    "adaptive_clipping": [{"enable": True}, {"enable": True, "history_length": 4}, {"percentile": 200}],
    "weight_decay_mode": ["decoupled", "independent", "corrected", "l2"],
    "weight_decay_exclude": [["bias"], ["("], "bias"],
    "scheduler_type": [
        "constant_with_warmup", "linear_with_warmup", "cosine", "cosine_with_warmup", "polynomial", "exponential",
        "one_cycle", "cyclic", "wsd", "inverse_sqrt", "piecewise",
    ],
    "decay_type": ["1-sqrt", "cosine", "linear"],
    "milestones": [[2, 4], [3]],
    "boundaries": [[2, 4], [3]],
    "factors": [[1.0, 0.1], [1.0, 0.5, 0.1]],
    "adam_pattern": ["a", "b"],
    "learning_rate": [0.1, 0.01, 0.0],
    "layer_depths": [{"a": 0, "b": 1}, {"a": 1}],
    **{name: [True, False] for name in ("per_parameter_clipping", "clip_output_layer", "cosine_restarts")},
    "use_scheduler": [True, False],
    **{name: [1e-3, 0.1] for name in ("min_learning_rate", "max_learning_rate", "warmup_init_lr", "epsilon")},
    **{name: [0.01, 1.0, 10] for name in ("clipnorm", "clipvalue", "clip_value", "global_clipnorm", "percentile")},
    "total_steps": [10, 100],
    "warmup_steps": [0, 1, 10, 1000],
    "gradient_accumulation_steps": [1, 2, 4],
    "state_precision": ["float32", "bfloat16", "8bit"],
    "remainder": ["flush", "carry"],
    "nonfinite": ["skip", "raise", "drop_micro_batch"],
    "layer_wise_lr_decay": [0.8, 1.0],
    "differential_learning_rates": [{"a": 2.0}, {"[": 1.0}],
    "groups": [[{"pattern": "a", "learning_rate": 2.0}], [{"pattern": "b", "weight_decay": 0.1}], [{}]],
    "ema_overwrite_frequency": [1, 2],
    "skip_spikes": [3.0],
    "lookahead_steps": [2, 5],
    "statistics_every": [1, 10],
}  # fmt: skip
"""Given to one option, beside the others."""

PROBES = ("last_active", "gradient_entries", "gradient_alignment", "micro_batches")
"""Variables that begin anew with each monitor, so that no file holds them."""


def run(ledger: Ledger, count: int, seconds: float = math.inf) -> None:
    """Until there are `count` in the ledger, or for so many seconds."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    end = time.monotonic() + seconds
    while ledger.count("fuzz") < count and time.monotonic() < end:
        outcomes, failures = piece(PIECE)
        ledger.add("fuzz", sum(outcomes.values()) + len(failures), failures, **outcomes)


def piece(examples: int) -> tuple[dict[str, int], list[str]]:
    """How many were trained and refused, and what failed otherwise."""
    outcomes: dict[str, int] = {"trained": 0, "refused": 0}
    failures: list[str] = []

    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(configurations())
    def one(options: dict[str, Any]) -> None:
        try:
            outcomes[outcome(options)] += 1
        except Exception:
            failures.append(f"{options!r}\n{traceback.format_exc(limit=-3)}")

    one()
    return outcomes, failures


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """An algorithm, and up to six options, most of them its own and with values that may fit."""
    from capibara_keras.rules import RULES

    algorithm = draw(st.sampled_from(sorted(RULES)))
    names = option_names(None if draw(st.integers(0, 9)) == 0 else algorithm)
    chosen = draw(st.lists(st.sampled_from(names), max_size=6, unique=True))
    options: dict[str, Any] = {"algorithm": algorithm}
    for name in chosen:
        strange = draw(st.integers(0, 19)) == 0
        options[name] = draw(st.sampled_from(ANY if strange else fitting(algorithm, name)))
    return options


def fitting(algorithm: str, name: str) -> list[Any]:
    """Values of the right type, as far as that is known."""
    import dataclasses

    from capibara_keras import config
    from capibara_keras.rules import RULES

    name = config.ALIASES.get(name, name)
    defaults = {
        f.name: f.default for owner in (RULES[algorithm], config.OptimizerConfig) for f in dataclasses.fields(owner)
    }
    kinds: dict[type, list[Any]] = {bool: [True, False], int: [1, 2, 5], float: [0.1, 0.5, 0.9, defaults.get(name)]}
    whole = name.endswith(("_steps", "_period", "timescale"))
    return FITTING.get(name) or kinds.get(int if whole else type(defaults.get(name)), [0.1, 0.9, 1.0, True, "cosine"])


def option_names(algorithm: str | None) -> list[str]:
    """Of an algorithm, or of all; schedules and aliases too."""
    import dataclasses

    from capibara_keras import config
    from capibara_keras.config.parsing import _OWN
    from capibara_keras.rules import RULES
    from capibara_keras.schedules import OPTION_NAMES

    fields = {
        field.name for name, rule in RULES.items() if algorithm in (None, name) for field in dataclasses.fields(rule)
    }
    return sorted({*fields, *OPTION_NAMES, *_OWN, *config.ALIASES, *config.MODIFIERS} - {"algorithm"})


def outcome(options: dict[str, Any]) -> str:
    """Build and train; then a copy made of configuration and state must do the next update as the original does.

    Raises:
        Exception: anything else than a `CapibaraError`; weights that are not finite; a copy that does otherwise.
    """
    import keras
    import numpy as np

    import capibara_keras as ck

    def values(variables: Any) -> dict[str, np.ndarray]:
        return {v.name: np.array(keras.ops.convert_to_numpy(v)) for v in variables if v.name not in PROBES}

    weights = [keras.Variable(np.full((3, 2), 0.5, "float32"), name="a"), keras.Variable([0.1, 0.2], name="b")]
    gradients = [keras.ops.full((3, 2), 0.01), keras.ops.array([0.01, -0.02])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            optimizer = ck.Optimizer(**options)
            for _ in range(1 + (optimizer.gradient_accumulation_steps or 1)):
                optimizer.apply(gradients, weights)
        except ck.CapibaraError:
            return "refused"
        before, store = values(weights), _Store()
        optimizer.save_own_variables(store)
        copy = ck.Optimizer.from_config(json.loads(json.dumps(optimizer.get_config())))
        copy.build(weights)
        copy.load_own_variables(store)
        ends = []
        for one in (optimizer, copy):
            for w in weights:
                w.assign(before[w.name])
            one.apply(gradients, weights)
            ends.append(values([*weights, *one.variables]))
    different = [name for name, a in ends[0].items() if not np.array_equal(a, ends[1][name], equal_nan=True)]
    if different:
        raise AssertionError(f"a copy of configuration and state trains otherwise: {different}")
    huge = any(isinstance(x, (int, float)) and abs(x) > 50 for x in options.values())
    if not huge and not all(np.isfinite(w).all() for w in before.values()):
        raise AssertionError("weights are not finite")
    return "trained"


class _Store(dict):
    """As `.weights.h5` is for an optimizer."""

"""The configuration of a trial: what the model brought, what was searched, and what follows from the budget."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from capibara_keras import config
from capibara_keras.errors import ConfigError
from capibara_keras.rules import RULES
from capibara_keras.tuning.domains import Values
from capibara_keras.tuning.search_space import SearchSpace
from capibara_keras.unwrap import optimizers_of

__all__ = ["any_algorithm", "base_options", "complete", "named_algorithm", "warmup_steps"]


def base_options(model: Any) -> Values:
    """The options of the model's optimizer where they are not defaults, if it is one of this package; else those of
    `Optimizer()`: Adam."""
    found = list(optimizers_of(getattr(model, "optimizer", None)))
    if len(found) != 1:
        return {"algorithm": "adam"}
    given = found[0].configuration.to_options()
    defaults = config.parse({"algorithm": given["algorithm"]}).to_options()
    return {k: v for k, v in given.items() if k == "algorithm" or k not in defaults or v != defaults[k]}


def complete(options: Values, steps: int) -> Values:
    """The options as they are measured: with the schedule's name, and the total that it takes from the budget."""
    settings = config.parse(options)
    result: Values = {"algorithm": settings.algorithm} | options
    if settings.schedule is not None and settings.use_scheduler:
        result.setdefault("scheduler_type", settings.schedule.shape)
        if "total_steps" in settings.schedule.missing():
            result["max_steps"] = max(1, steps // settings.accumulation_steps)
    return result


def warmup_steps(options: Values, steps: int) -> int:
    """Batches until the rate of a configuration is up."""
    settings = config.parse(options)
    if settings.schedule is None or not settings.use_scheduler:
        return 0
    given, each = settings.schedule.to_options(), settings.accumulation_steps
    ratio = given.get("warmup_ratio", 0.0)
    return int(given.get("warmup_steps", 0) * each + math.ceil(ratio * steps))


def any_algorithm(search_space: Any) -> Values:
    """Before the model is known, a space that does not name the algorithm is checked with any that has its options;
    nothing if there is none, or the space is none."""
    if not isinstance(search_space, Mapping) or "algorithm" in search_space:
        return {}
    for algorithm in ("adam", *RULES):
        with contextlib.suppress(ConfigError):
            SearchSpace.parse(search_space, {"algorithm": algorithm})
            return {"algorithm": algorithm}
    return {}


def named_algorithm(search_space: Mapping[str, Any]) -> Values:
    """A fixed algorithm in the search space replaces the model's: its other options may not exist there."""
    value = search_space.get("algorithm")
    return {"algorithm": value} if isinstance(value, str) else {}

"""Sizes as people give them: names, numbers, numbers with a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from capibara_keras import errors

__all__ = ["DATASETS", "EXAMPLES", "MODELS", "count", "memory"]

MODELS = {"tiny": 10e6, "small": 125e6, "medium": 350e6, "large": 760e6, "xl": 1.3e9}
"""Names of models -> parameters. From "small" on they are those of GPT-3 (Brown et al. 2020, Table 2.1)."""

DATASETS = {"small": 10e6, "medium": 100e6, "large": 1e9, "multi_billion_tokens": 10e9}
"""Names of data for pretraining -> tokens."""

EXAMPLES = {"small": 2_500.0, "medium": 50_000.0, "large": 500_000.0, "multi_billion_tokens": 10e6}
"""Names of data for fine-tuning -> examples: the orders of RTE, of SST-2 and QNLI, and of MNLI in GLUE."""

_COUNT = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_BYTES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def count(name: str, value: Any, names: Mapping[str, float]) -> float:
    """A number of things.

    Args:
        name: of the argument, for the error.
        value: a number, "1.3B", "350M", or one of `names`.

    Raises:
        ConfigError: none of these; it names the nearest.

    >>> count("model_size", "1.3B", MODELS), count("model_size", "large", MODELS)
    (1300000000.0, 760000000.0)
    """
    if isinstance(value, str):
        if value.lower() in names:
            return float(names[value.lower()])
        found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmbt]?)\s*", value.lower())
        if found is None:
            raise errors.unknown(name, value, [*names, "a number", "'1.3B'"])
        value = _float(name, value, found[1]) * _COUNT[found[2]]
    return errors.number(name, value, 1)


def memory(name: str, value: Any) -> int:
    """Bytes, from a number or a text such as "8GB" (8e9) or "8 GiB" (8 · 2^30).

    >>> memory("memory_budget", "8GB"), memory("memory_budget", "1.5 GiB")
    (8000000000, 1610612736)
    """
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]+)\s*", value.lower())
        if found is None or found[2] not in _BYTES:
            units = ", ".join(["B", "KB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"])
            raise errors.ConfigError(f"{name}: expected bytes or a text like '8GB' (units {units}), received {value!r}")
        value = _float(name, value, found[1]) * _BYTES[found[2]]
    return int(errors.number(name, value, 1))


def _float(name: str, value: str, digits: str) -> float:
    try:
        return float(digits)
    except ValueError as error:
        raise errors.ConfigError(f"{name}: {digits!r} in {value!r} is not a number") from error

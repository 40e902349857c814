"""What the page shows of layers: a table for each update, from what was observed or from what a file recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from capibara_keras.monitoring.observation import Observation, Subject

__all__ = ["BY_LAYER", "observed", "recorded"]

BY_LAYER = ("gradient", "parameter", "change", "silent")
"""Per layer: root mean square of the gradient's entries, norm of the weights, change as a share of that norm, share
of units without a gradient."""


def observed(x: Observation, subject: Subject, silent: np.ndarray | None = None) -> np.ndarray:
    """`BY_LAYER` of one update, a row each.

    Args:
        silent: share of each layer's units that have no gradient; `None` if that is not known.
    """
    nothing = np.full(len(subject.layers), np.nan)
    gradient, parameter, change = (
        subject.by_layer(norms) if len(norms) else nothing
        for norms in (x.gradient_norms, x.parameter_norms, x.update_norms)
    )
    usable = subject.matrices & np.isfinite(parameter) & (parameter > 1e-12 * np.sqrt(subject.sizes))
    share = np.divide(change, parameter, out=nothing.copy(), where=usable)
    rms = gradient / np.sqrt(np.maximum(subject.sizes, 1))
    unreached = nothing if silent is None or not math.isfinite(x.gradient_norm) else silent
    return np.stack([rms, parameter, share, unreached])


def recorded(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Names of layers, and `BY_LAYER` for each record, as `HealthMonitor` writes them. Without layers, of none.

    >>> layers = {"a": {"gradient_norm": 3.0, "parameter_norm": 2.0, "update_norm": 1.0}}
    >>> names, tables = recorded([{"layers": layers}, {}])
    >>> names, tables[0][:3, 0].tolist(), len(tables)
    (('a',), [3.0, 2.0, 0.5], 2)
    """
    names = tuple(dict.fromkeys(name for row in rows for name in row.get("layers") or {}))
    tables = []
    for row in rows:
        table = np.full((len(BY_LAYER), len(names)), np.nan)
        for k, name in enumerate(names):
            norms = (row.get("layers") or {}).get(name, {})
            gradient, parameter, change = (
                _number(norms.get(f"{kind}_norm")) for kind in ("gradient", "parameter", "update")
            )
            table[:3, k] = gradient, parameter, change / parameter if parameter > 0 else math.nan
        tables.append(table)
    return names, tables


def _number(x: Any) -> float:
    return math.nan if x is None else float(x)

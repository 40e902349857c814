"""Norms, zeros and a logarithmic histogram of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capibara_keras.records import Record

__all__ = ["GradientAnalysis", "Histogram", "LayerGradients", "analyze"]

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
EDGES = np.logspace(-12, 4, 42)
"""Edges of the histogram's 41 bins of |g|."""

WINDOW = 100
"""Updates that the clipping frequency looks back on."""


@dataclass(frozen=True, eq=False)
class LayerGradients(Record):
    """The gradient of one layer: L2 norm, root mean square, share of zeros, number of non-finite entries.

    >>> analyze({"head/kernel": np.array([3.0, 0.0])}).layers["head"].zero_fraction
    0.5
    """

    norm: float
    rms: float
    zero_fraction: float
    nonfinite: int


@dataclass(frozen=True, eq=False)
class Histogram(Record):
    """|g| in logarithmic bins.

    Args:
        edges: of the bins; in linear bins nearly all entries would share one.
        counts: entries per bin; those outside the edges are in the first and last.
        zero, nan, positive_infinity, negative_infinity: entries that have no place in a logarithmic bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    zero: int
    nan: int
    positive_infinity: int
    negative_infinity: int


@dataclass(frozen=True, eq=False)
class GradientAnalysis(Record):
    """What `Optimizer.analyze_gradients` returns.

    Args:
        norm: L2 norm over all gradients that were given.
        norm_percentiles: percentile -> norm, of the `updates` recent updates; `nan` where there were none.
        updates: how many recent updates the percentiles are of.
        clipping_frequency: share of the last 100 updates that were clipped; `nan` where clipping is off.
        layer_norms: layer -> L2 norm.
        layers: layer -> `LayerGradients`; empty unless asked for.
        histogram: `None` unless asked for.

    >>> analyze({"head/kernel": np.array([3.0, 4.0])}).norm
    5.0
    """

    norm: float
    norm_percentiles: dict[int, float]
    updates: int
    clipping_frequency: float
    layer_norms: dict[str, float]
    layers: dict[str, LayerGradients]
    histogram: Histogram | None


def analyze(
    gradients: Mapping[str, np.ndarray],
    recent_norms: Sequence[float] = (),
    recent_clipped: Sequence[bool] | None = None,
    *,
    histogram: bool = False,
    layers: bool = True,
) -> GradientAnalysis:
    """Analyse gradients by variable path.

    Args:
        gradients: path -> array; the layer is the path without its last part.
        recent_norms: norms of recent updates; those that are not finite are left out.
        recent_clipped: whether these were clipped; `None` where clipping is off.
        histogram: make one over all entries.
        layers: make `LayerGradients`.

    >>> analyze({"dense/kernel": np.array([3.0, 4.0])}).layer_norms
    {'dense': 5.0}
    """
    by_layer: dict[str, list[np.ndarray]] = {}
    for path, gradient in gradients.items():
        layer = path.rsplit("/", 1)[0] if "/" in path else path
        by_layer.setdefault(layer, []).append(np.asarray(gradient, np.float64).ravel())
    joined = {layer: np.concatenate(parts) for layer, parts in by_layer.items()}
    norms = np.asarray(recent_norms, np.float64)
    norms = norms[np.isfinite(norms)]
    values = np.percentile(norms, PERCENTILES) if norms.size else np.full(len(PERCENTILES), np.nan)
    clipped = (
        float("nan") if recent_clipped is None or not len(recent_clipped) else float(np.mean(recent_clipped[-WINDOW:]))
    )
    everything = np.concatenate(list(joined.values())) if joined else np.zeros(0)
    return GradientAnalysis(
        norm=_norm(everything),
        norm_percentiles=dict(zip(PERCENTILES, values.tolist(), strict=True)),
        updates=int(norms.size),
        clipping_frequency=clipped,
        layer_norms={layer: _norm(g) for layer, g in joined.items()},
        layers={layer: _layer(g) for layer, g in joined.items()} if layers else {},
        histogram=_histogram(everything) if histogram else None,
    )


def _norm(g: np.ndarray) -> float:
    return float(np.sqrt(np.sum(g * g)))


def _layer(g: np.ndarray) -> LayerGradients:
    return LayerGradients(
        norm=_norm(g),
        rms=_norm(g) / max(g.size, 1) ** 0.5,
        zero_fraction=float(np.mean(g == 0)) if g.size else float("nan"),
        nonfinite=int(np.sum(~np.isfinite(g))),
    )


def _histogram(g: np.ndarray) -> Histogram:
    sizes = np.abs(g[np.isfinite(g) & (g != 0)])
    counts, _ = np.histogram(np.clip(sizes, EDGES[0], EDGES[-1]), EDGES)
    return Histogram(
        edges=EDGES,
        counts=counts,
        zero=int(np.sum(g == 0)),
        nan=int(np.sum(np.isnan(g))),
        positive_infinity=int(np.sum(g == np.inf)),
        negative_infinity=int(np.sum(g == -np.inf)),
    )

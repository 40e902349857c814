"""The nine panels of the page. Each draws one thing of a `Story`, or says that it is not known."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.monitoring.convergence import ConvergenceAnalysis, analyze
from capibara_keras.monitoring.plots import BLUE, GREEN, LEVEL_COLOURS, ORANGE, PURPLE, RED, USUAL
from capibara_keras.monitoring.report.story import Story

__all__ = ["PANELS", "draw", "verdict"]

NAMED = 6
"""Layers that a panel names; of more, it shows the range."""

SMOOTHING = 0.05
"""Share of the page's rows over which the loss is averaged."""


def draw(story: Story, title: str) -> Any:
    """The figure, in A4 across.

    Args:
        title: above it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.5, 11.7), layout="constrained")
    figure.suptitle(title, fontsize=15)
    grid = figure.subplots(3, 3)
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        panel(axes, story)
        axes.title.set_fontsize(11)
        axes.tick_params(labelsize=8)
        if axes.get_xlabel() == "update":
            axes.set_xlim(*_reach(story))
    return figure


def verdict(story: Story) -> ConvergenceAnalysis | None:
    """How the loss converges, in updates; `None` where there are too few losses."""
    loss = story.series("loss")
    if np.isfinite(loss).sum() < 20:
        return None
    try:
        return analyze(loss)
    except errors.CapibaraError:
        return None


# Panels ------------------------------------------------------------------------------------------------------------


def loss_panel(axes: Any, story: Story) -> None:
    """Loss of batches, smoothed, on other data, and where it is going."""
    x, loss, high = story.series("update"), story.series("loss"), story.series("loss_high")
    finite = np.isfinite(loss)
    if not finite.any():
        return _unknown(axes, "Loss", "fit or optimizer.observe tell the loss")
    axes.plot(x[finite], loss[finite], color=BLUE, alpha=0.35, linewidth=0.8, label="batches")
    peaks = np.isfinite(high) & (story.stride > 1)
    if peaks.any():
        axes.plot(x[peaks], high[peaks], color=BLUE, alpha=0.15, linewidth=0.5, label=f"highest of {story.stride}")
    axes.plot(x[finite], _smoothed(loss[finite]), color=BLUE, linewidth=1.8, label="smoothed")
    _rug(axes, x, np.isinf(loss) | np.isinf(high), "not finite")
    if story.validation:
        axes.plot(*zip(*story.validation, strict=True), "o-", color=ORANGE, markersize=4, label="validation")
    found = verdict(story)
    if found is not None and 0 < found.eta_steps < math.inf and math.isfinite(found.floor):
        axes.axhline(found.floor, color=GREEN, linestyle="--", linewidth=1.2, label=f"goes to {found.floor:.3g}")
    if _spans(loss[finite]):
        axes.set_yscale("log")
    _alert_lines(axes, story)
    _labels(axes, "Loss", "loss")


def rate_panel(axes: Any, story: Story) -> None:
    """Learning rate on a log axis."""
    x, rate = story.series("update"), story.series("learning_rate")
    if not np.isfinite(rate).any():
        return _unknown(axes, "Learning rate", "it was not recorded")
    axes.plot(x, rate, color=BLUE)
    if (rate > 0).any() and _spans(rate[rate > 0]):
        axes.set_yscale("log", nonpositive="mask")
    elif np.nanmax(rate) > 0:
        axes.set_ylim(0, 1.15 * np.nanmax(rate))
    fell = np.flatnonzero(np.diff(rate) <= 0)
    if len(fell) and fell[0] > 0:  # a rate that only ever rose has no end of its warm-up yet
        axes.axvspan(x[0], x[fell[0]], color=ORANGE, alpha=0.15, linewidth=0, label="warm-up (first rise)")
    _labels(axes, "Learning rate", "learning rate (per update)")


def text_panel(axes: Any, story: Story) -> None:
    """Where training stands, and what was wrong."""
    axes.axis("off")
    axes.set_title("Where it stands", loc="left")
    lines = [_counted(story.updates, "update"), *_convergence_lines(story), ""]
    skipped = int(np.nansum(story.series("skipped")))
    if skipped:
        lines.append(f"{_counted(skipped, 'update')} skipped: not finite")
    serious = [alert for alert in story.alerts if alert.level != "info"]
    counts = (_counted(len(serious), "alert"), _counted(len(story.alerts) - len(serious), "hint"))
    lines.append(", ".join(counts) if story.alerts else "No alerts.")
    for alert in sorted(serious[-4:], key=lambda alert: (alert.level != "critical", alert.step)):
        layer = f" in {_short(alert.layer, 60)}" if alert.layer else ""
        text = f"{alert.level} at {alert.step}: {alert.id}{layer}"
        lines += textwrap.wrap(text, 62, subsequent_indent="   ")
        lines += textwrap.wrap(
            alert.suggestion, 58, initial_indent="   ", subsequent_indent="   ", max_lines=2, placeholder=" …"
        )
    text = "\n".join(line if len(line) < 64 else line[:61] + "…" for line in lines[:24])
    axes.text(0, 0.97, text, va="top", ha="left", fontsize=9, family="monospace", transform=axes.transAxes)


def gradient_panel(axes: Any, story: Story) -> None:
    """Norm of the gradient with its range, the limit, and where it was clipped."""
    x, norm = story.series("update"), story.series("gradient_norm")
    known = np.isfinite(norm) & (norm > 0)
    if not known.any():
        return _unknown(axes, "Norm of the gradient", "no finite one was recorded")
    low, high = _band(norm[known])
    axes.fill_between(x[known], low, high, color=BLUE, alpha=0.2, linewidth=0, label="10 to 90 % nearby")
    axes.plot(x[known], norm[known], color=BLUE, linewidth=0.9, label="before clipping")
    limit = story.series("clip_threshold")
    if np.isfinite(limit).any():
        axes.plot(x, limit, color=GREEN, linestyle="--", label="limit")
    clipped = known & (story.series("clipped") > 0.5)
    if clipped.any():
        axes.plot(x[clipped], norm[clipped], "o", color=ORANGE, markersize=3, markerfacecolor="none", label="clipped")
    _rug(axes, x, np.isinf(story.series("gradient_high")) | (story.series("skipped") > 0), "not finite, skipped")
    axes.set_yscale("log")
    _alert_lines(axes, story)
    _labels(axes, "Norm of the gradient", "L2 norm (loss / weight)")


def layers_panel(axes: Any, story: Story) -> None:
    """Size of the gradient's entries by layer and time."""
    table = story.by_layer("gradient")
    if not np.isfinite(table).any():
        return _unknown(axes, "Gradient by layer", "HealthMonitor or TrainingReport measure it")
    x = story.series("update")
    with np.errstate(divide="ignore", invalid="ignore"):
        image = np.log10(np.where(table > 0, table, np.nan))
    n = len(story.layers)
    extent = (x[0], max(x[-1], x[0] + 1), n - 0.5, -0.5)
    shown = axes.imshow(image, aspect="auto", extent=extent, cmap="viridis", interpolation="nearest")
    step = max(1, -(-n // 14))
    axes.set_yticks(range(0, n, step), _names(story.layers)[::step])
    axes.figure.colorbar(shown, ax=axes, label=f"log10 of {story.gradient_unit}", pad=0.01)
    _labels(axes, "Gradient by layer (input at the top)", "", legend=False, grid=False)


def histogram_panel(axes: Any, story: Story) -> None:
    """Gradient norms at the start and now."""
    from matplotlib.ticker import LogLocator

    early, late = (np.array([x for x in norms if x > 0]) for norms in (story.early, story.late))
    if len(early) < 10 or len(late) < 10:
        return _unknown(axes, "Gradient norms, then and now", "fewer than 10 updates")
    both = np.log10(np.concatenate([early, late]))
    low, high = both.min(), max(both.max(), both.min() + 0.1)
    bins = np.logspace(low, high, 30)
    axes.hist(early, bins, color=BLUE, alpha=0.5, label=f"first {len(early)} updates")
    axes.hist(late, bins, color=ORANGE, alpha=0.5, label=f"last {len(late)}", hatch="//", edgecolor="white")
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter("")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high - low < 3 else (1.0,), numticks=6))
    axes.xaxis.set_major_formatter("{x:g}")
    _labels(axes, "Gradient norms, then and now", "updates", xlabel="L2 norm (loss / weight)")


def ratio_panel(axes: Any, story: Story) -> None:
    """Change as a share of the weights' norm, by layer, and the usual band."""
    table = story.by_layer("change")
    if not np.isfinite(table).any():
        norm, change = story.series("parameter_norm"), story.series("update_norm")
        table = np.divide(change, norm, out=np.full(len(norm), np.nan), where=norm > 0)[None]
        if not np.isfinite(table).any():
            return _unknown(axes, "Change per update", "HealthMonitor or TrainingReport measure it")
    axes.axhspan(*USUAL, color=GREEN, alpha=0.12, linewidth=0, label="usual: 1e-4 to 1e-2")
    _by_layer(axes, story, table)
    axes.set_yscale("log", nonpositive="mask")
    _labels(axes, "Change per update", "change / norm (share)")


def norm_panel(axes: Any, story: Story) -> None:
    """Norm of the weights by layer."""
    table = story.by_layer("parameter")
    if not np.isfinite(table).any():
        table = story.series("parameter_norm")[None]
        if not np.isfinite(table).any():
            return _unknown(axes, "Norm of the weights", "HealthMonitor or TrainingReport measure it")
    _by_layer(axes, story, table)
    if _spans(table[np.isfinite(table) & (table > 0)]):
        axes.set_yscale("log", nonpositive="mask")
    _labels(axes, "Norm of the weights", "L2 norm (weight)")


def silent_panel(axes: Any, story: Story) -> None:
    """Share of units that no gradient reaches."""
    table = story.by_layer("silent")
    if not np.isfinite(table).any():
        return _unknown(axes, "Units without a gradient", "TrainingReport measures it, for layers with biases")
    _by_layer(axes, story, 100 * table)
    axes.axhline(60, color=RED, linestyle="--", linewidth=1, label="alert above 60 %")
    axes.set_ylim(-3, 103)
    _labels(axes, "Units without a gradient", "share of units (%)")


PANELS: tuple[Callable[[Any, Story], None], ...] = (
    loss_panel,
    rate_panel,
    text_panel,
    gradient_panel,
    layers_panel,
    histogram_panel,
    ratio_panel,
    norm_panel,
    silent_panel,
)
"""From top left to bottom right."""


# Parts of panels -----------------------------------------------------------------------------------------------------


def _convergence_lines(story: Story) -> list[str]:
    found = verdict(story)
    if found is None:
        return ["convergence: not known with fewer than 20 losses"]
    stride = story.stride
    lines = [f"status: {found.status}"]
    if found.status == "converging":
        low, high = (end / stride for end in found.intervals["rate"])
        lines.append(f"rate: {found.rate / stride:.2e} per update ({low:.1e} to {high:.1e})")
        if math.isfinite(found.eta_steps):
            low, high = (end * stride for end in found.intervals["eta_steps"])
            until = f"{high:.0f}" if math.isfinite(high) else "open"
            lines.append(f"to 1 % of the gap: {found.eta_steps * stride:.0f} updates ({low:.0f} to {until})")
    return [*lines, f"stability: {found.stability:.3f}"]


def _by_layer(axes: Any, story: Story, table: np.ndarray) -> None:
    """A line for each of a few layers; of many, the range, the median, and the ends."""
    x = story.series("update")
    some = [k for k in range(len(table)) if np.isfinite(table[k]).any()]
    names = _names(story.layers) if len(table) == len(story.layers) else ["all"] * len(table)
    colours = [BLUE, ORANGE, GREEN, RED, PURPLE, "#56B4E9"]
    if len(some) <= NAMED:
        for k, colour in zip(some, colours, strict=False):
            keep = np.isfinite(table[k])
            axes.plot(x[keep], table[k][keep], color=colour, linewidth=1.2, label=names[k])
        return
    columns = np.isfinite(table).any(axis=0)
    known = table[:, columns]
    low, middle, high = np.nanpercentile(np.where(np.isfinite(known), known, np.nan), (0, 50, 100), axis=0)
    axes.fill_between(x[columns], low, high, color=BLUE, alpha=0.2, linewidth=0, label=f"{len(some)} layers, range")
    axes.plot(x[columns], middle, color=BLUE, linewidth=1.4, label="median")
    for k, colour in ((some[0], GREEN), (some[-1], RED)):
        keep = np.isfinite(table[k])
        axes.plot(x[keep], table[k][keep], color=colour, linewidth=1, label=names[k])


def _alert_lines(axes: Any, story: Story) -> None:
    """The first place of each kind of alert."""
    seen: set[str] = set()
    for alert in story.alerts:
        if alert.level != "info" and alert.id not in seen and len(seen) < 4:
            seen.add(alert.id)
            colour = LEVEL_COLOURS.get(alert.level, RED)
            axes.axvline(alert.step, color=colour, linestyle=":", linewidth=1.3, label=alert.id)


def _labels(
    axes: Any, title: str, ylabel: str, *, xlabel: str = "update", legend: bool = True, grid: bool = True
) -> None:
    axes.set_title(title, loc="left")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if grid:
        axes.grid(alpha=0.25)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, loc="best", framealpha=0.7)


def _unknown(axes: Any, title: str, why: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, f"not known\n({why})", ha="center", va="center", color="#777777", transform=axes.transAxes)


def _spans(values: np.ndarray) -> bool:
    """Whether positive values span more than a factor of 20, which a log axis shows better."""
    return len(values) > 0 and bool((values > 0).all()) and bool(values.max() > 20 * values.min())


def _smoothed(y: np.ndarray) -> np.ndarray:
    """Median of five, then exponentially weighted from both sides, so that it does not lag; of logarithms where the
    axis is one of them, or the largest numbers would hide all others."""
    if _spans(y):
        return np.exp(_smoothed_evenly(np.log(y)))
    return _smoothed_evenly(y)


def _smoothed_evenly(y: np.ndarray) -> np.ndarray:
    a = 1.0 / max(2.0, SMOOTHING * len(y))
    padded = np.pad(y, 2, mode="edge")
    calm = np.median(np.stack([padded[i : i + len(y)] for i in range(5)]), axis=0)
    return (_weighted(calm, a) + _weighted(calm[::-1], a)[::-1]) / 2


def _weighted(y: np.ndarray, a: float) -> np.ndarray:
    out, mean = np.empty_like(y), float(y[0])
    for i, value in enumerate(y):
        mean += a * (float(value) - mean)
        out[i] = mean
    return out


def _band(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """10th and 90th percentile of the neighbourhood of each number."""
    half = max(5, len(y) // 40)
    padded = np.pad(y, half, mode="reflect" if len(y) > half else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    low, high = np.percentile(windows, (10, 90), axis=1)
    return low, high


def _reach(story: Story) -> tuple[float, float]:
    """First and last update, the same for all panels over updates."""
    x = story.series("update")
    return float(x.min()), float(max(x.max(), x.min() + 1))


def _rug(axes: Any, x: np.ndarray, where: np.ndarray, label: str) -> None:
    """Marks at the upper edge, for what has no place on the axis."""
    if where.any():
        place = np.full(int(where.sum()), 0.97)
        axes.plot(x[where], place, "x", color=RED, transform=axes.get_xaxis_transform(), label=label)


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _short(name: str, length: int = 24) -> str:
    """A name with its middle left out."""
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[: length - 1 - half]}…{name[-half:]}"


def _names(layers: Sequence[str]) -> list[str]:
    """Short names that tell layers apart: without the parts of the path that all share at either end, or with an
    index where what is left out of the middle is what they differ in.

    >>> _names(["model/block_0/dense", "model/block_1/dense"])
    ['block_0', 'block_1']
    """
    paths = [name.split("/") for name in layers]
    first, last = 0, 0
    if len(paths) > 1:
        shortest = min(map(len, paths))
        while first < shortest - 1 and len({path[first] for path in paths}) == 1:
            first += 1
        while last < shortest - 1 - first and len({path[-1 - last] for path in paths}) == 1:
            last += 1
    short = [_short("/".join(path[first : len(path) - last])) for path in paths]
    return [name if short.count(name) == 1 else f"{k}: {_short(name, 20)}" for k, name in enumerate(short)]

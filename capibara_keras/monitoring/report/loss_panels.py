"""The upper row of the page: the loss, the learning rate, and where training stands."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from capibara_keras import errors
from capibara_keras.monitoring.alerts import Alert
from capibara_keras.monitoring.convergence import ConvergenceAnalysis, analyze
from capibara_keras.monitoring.palette import BLUE, GREEN, ORANGE
from capibara_keras.monitoring.report.names import short
from capibara_keras.monitoring.report.parts import alert_lines, labels, line, rug, unknown
from capibara_keras.monitoring.report.smoothing import FEWEST, smoothed
from capibara_keras.monitoring.report.story import Story
from capibara_keras.monitoring.scales import from_zero, spans

__all__ = ["loss_panel", "rate_panel", "text_panel", "verdict"]

TOLD = 4
"""Alerts that the page names; all are in the table below the figure."""

WIDE = 62
"""Letters in a line of the panel of text."""


def verdict(story: Story) -> ConvergenceAnalysis | None:
    """How the loss converges, per row of the story; `None` where no loss is known."""
    loss = story.series("loss")
    told = loss[~np.isnan(loss)]
    if not len(told):
        return None
    try:
        return analyze(told)
    except errors.CapibaraError:
        return None


def loss_panel(axes: Any, story: Story) -> None:
    """Loss of batches, smoothed, on other data, and where it is going."""
    x, loss, high = story.series("update"), story.series("loss"), story.series("loss_high")
    finite = np.isfinite(loss)
    if not finite.any():
        bad = np.isinf(loss).any() or np.nansum(story.series("skipped")) > 0
        return unknown(axes, "Loss", "no finite one was recorded" if bad else "fit or optimizer.observe tell the loss")
    logarithmic = spans(loss[finite])
    if finite.sum() >= FEWEST:
        line(axes, x, loss, BLUE, "batches", alpha=0.35, linewidth=0.8)
        known = np.log(loss[finite]) if logarithmic else loss[finite]
        smooth = np.exp(smoothed(known)) if logarithmic else smoothed(known)
        line(axes, x[finite], smooth, BLUE, "smoothed", linewidth=1.8)
    else:
        line(axes, x, loss, BLUE, "batches", linewidth=1.2)
    if story.stride > 1:
        line(axes, x, high, BLUE, f"highest of {story.stride}", alpha=0.15, linewidth=0.5)
    rug(axes, x, np.isinf(loss) | np.isinf(high), "not finite")
    validation = np.array([row for row in story.validation if math.isfinite(row[1])])
    if len(validation):
        axes.plot(*validation.T, "o-", color=ORANGE, markersize=4, linewidth=1.2, label="validation")
    found = verdict(story)
    lowest = 0.0 if logarithmic else -math.inf  # a log axis has no place for a floor below
    if found is not None and 0 < found.eta_steps < math.inf and lowest < found.floor < math.inf:
        axes.axhline(found.floor, color=GREEN, linestyle="--", linewidth=1.2, label=f"goes to {found.floor:.3g}")
    if logarithmic:
        axes.set_yscale("log")
    alert_lines(axes, story)
    labels(axes, "Loss", "loss")


def rate_panel(axes: Any, story: Story) -> None:
    """Learning rate, from 0 on or on a log axis."""
    x, rate = story.series("update"), story.series("learning_rate")
    if not np.isfinite(rate).any():
        return unknown(axes, "Learning rate", "it was not recorded")
    line(axes, x, rate, BLUE, "")
    from_zero(axes, rate)
    fell = np.flatnonzero(np.diff(rate) <= 0)
    if len(fell) and fell[0] > 0:  # a rate that only ever rose has no end of its warm-up yet
        axes.axvspan(x[0], x[fell[0]], color=ORANGE, alpha=0.15, linewidth=0, label="warm-up (first rise)")
    labels(axes, "Learning rate", "learning rate (per update)")


def text_panel(axes: Any, story: Story) -> None:
    """Where training stands, and what was wrong."""
    axes.axis("off")
    axes.set_title("Where it stands", loc="left")
    lines = [_counted(story.updates, "update"), *_convergence(story), ""]
    skipped = int(np.nansum(story.series("skipped")))
    if skipped:
        lines.append(f"{_counted(skipped, 'update')} skipped: not finite")
    serious = [alert for alert in story.alerts if alert.level != "info"]
    counts = (_counted(len(serious), "alert"), _counted(len(story.alerts) - len(serious), "hint"))
    lines.append(", ".join(counts) if story.alerts else "No alerts.")
    critical = sorted((a for a in serious if a.level == "critical"), key=lambda a: a.step)  # the first may cause others
    others = sorted((a for a in serious if a.level != "critical"), key=lambda a: -a.step)
    for alert in [*critical, *others][:TOLD]:
        lines += _told(alert)
    text = "\n".join(text if len(text) < WIDE + 2 else text[: WIDE - 1] + "…" for text in lines[:24])
    axes.text(0, 0.97, text, va="top", ha="left", fontsize=9, family="monospace", transform=axes.transAxes)


def _convergence(story: Story) -> Iterator[str]:
    """How the loss converges, in updates."""
    found, stride = verdict(story), story.stride
    if found is None or found.status == "undetermined":
        yield f"loss: fewer than {FEWEST} finite ones, too few to say"
        return
    yield f"loss: {found.status}"
    if found.status == "converging":
        low, high = (100 * end / stride for end in found.intervals["rate"])
        yield f"gap to its floor: -{100 * found.rate / stride:.2g} % per update ({low:.2g} to {high:.2g})"
        if math.isfinite(found.eta_steps):
            low, high = (end * stride for end in found.intervals["eta_steps"])
            until = f"{high:.0f}" if math.isfinite(high) else "open"
            yield f"1 % of the gap is left: in {found.eta_steps * stride:.0f} updates ({low:.0f} to {until})"
        else:
            yield "1 % of the gap is left: cannot be told yet"
    yield f"stability: {found.stability:.3f}"


def _told(alert: Alert) -> Iterator[str]:
    """An alert in a few lines."""
    where = f" in {short(alert.layer, WIDE - 2)}" if alert.layer else ""
    yield from textwrap.wrap(f"{alert.level} at {alert.step}: {alert.id}{where}", WIDE, subsequent_indent="   ")
    for text in textwrap.wrap(alert.suggestion, WIDE - 6, max_lines=3, placeholder=" …"):
        yield f"   {text}"


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"

"""What is printed while a search runs, and the table of its trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from capibara_keras.tuning.trials import Search, TrialRecord

__all__ = ["line", "table"]


def line(record: TrialRecord, search: Search, metric: str, steps: int) -> str:
    """One line for a trial that has ended: what it gave, the best so far, and how long the rest will take."""
    done = sum(t.done for t in search.trials)
    width = len(str(search.max_trials))
    best = search.best()
    parts = [
        f"{done:>{width}}/{search.max_trials}  trial {record.number:>{width}}",
        f"{metric} {number(record.score)}" if math.isfinite(record.score) else record.status,
        f"best {number(best.score)} (trial {best.number})" if best else "no result yet",
        f"{record.status} at {record.steps}/{steps}" if record.steps < steps else f"{steps} steps",
        duration(record.seconds),
    ]
    left = remaining(search)
    if math.isfinite(left):
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def remaining(search: Search) -> float:
    """Seconds until the search ends, from the time of the last 20 trials; `nan` if not known."""
    times = [t.seconds for t in search.trials if t.done and math.isfinite(t.seconds)][-20:]
    left = search.max_trials - sum(t.done for t in search.trials)
    return left * sum(times) / len(times) if times else math.nan


def table(search: Search, metric: str, most: int | None = None) -> str:
    """The trials, best first.

    Args:
        most: rows at most; `None` for all.
    """
    ranked = sorted((t for t in search.trials if t.done), key=lambda t: (_rank(search, t), t.number))[:most]
    names = [d.name for d in search.space.searched]
    head = ["trial", metric, "steps", "status", *names]
    rows = [
        [f"{t.number}", number(t.score), f"{t.steps}", t.status, *(number(t.options.get(name, "-")) for name in names)]
        for t in ranked
    ]
    return _aligned([head, *rows])


def number(value: Any) -> str:
    """A value, short."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def duration(seconds: float) -> str:
    """Seconds as people write them.

    >>> duration(4.24), duration(75), duration(9000)
    ('4.2 s', '1:15', '2:30:00')
    """
    if math.isnan(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rank(search: Search, trial: TrialRecord) -> tuple[int, float]:
    """Measured in full first, then pruned, then the others."""
    kind = {"completed": 0, "pruned": 1}.get(trial.status, 2)
    loss = search.loss(trial)
    return (kind, loss if math.isfinite(loss) else math.inf)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

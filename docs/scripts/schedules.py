"""Draws docs/figures/schedules.png: every shape, through `preview`. `python docs/scripts/schedules.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from capibara_keras import schedules as s

FIGURE = Path(__file__).parents[1] / "figures" / "schedules.png"
PEAK, TOTAL, WARMUP, FLOOR = 1.0, 100, 10, 0.1

SHAPES: dict[str, list[tuple[str, s.Schedule]]] = {
    "cosine_with_warmup": [("", s.CosineWithWarmup(PEAK, TOTAL, WARMUP, FLOOR))],
    "cosine_with_warmup, cycles": [
        ("cosine_cycles=2.5", s.CosineWithWarmup(PEAK, TOTAL, WARMUP, FLOOR, cosine_cycles=2.5)),
    ],
    "cosine_with_warmup, restarts": [
        (
            "period 30, decay 0.7",
            s.CosineWithWarmup(PEAK, TOTAL, WARMUP, FLOOR, cosine_restarts=True, restart_period=30, restart_decay=0.7),
        ),
        (
            "period 15, multiplier 2, warmup 5",
            s.CosineWithWarmup(
                PEAK,
                TOTAL,
                WARMUP,
                FLOOR,
                cosine_restarts=True,
                restart_period=15,
                restart_multiplier=2,
                restart_warmup_steps=5,
            ),
        ),
    ],
    "linear_with_warmup": [("", s.LinearWithWarmup(PEAK, TOTAL, WARMUP, FLOOR))],
    "polynomial": [(f"power={p:g}", s.Polynomial(PEAK, TOTAL, WARMUP, FLOOR, power=p)) for p in (0.5, 1.0, 2.0)],
    "constant_with_warmup": [("", s.ConstantWithWarmup(PEAK, WARMUP))],
    "inverse_sqrt": [(f"timescale={t}", s.InverseSqrt(PEAK, WARMUP, timescale=t)) for t in (10, 40)],
    "wsd": [
        (f'decay_shape="{shape}"', s.WSD(PEAK, TOTAL, 30, WARMUP, FLOOR, decay_shape=shape))
        for shape in ("linear", "cosine", "1-sqrt")
    ],
    "exponential": [
        ("by its end", s.Exponential(PEAK, TOTAL, WARMUP, FLOOR)),
        ("decay_rate=0.5, decay_steps=15", s.Exponential(PEAK, None, WARMUP, decay_rate=0.5, decay_steps=15)),
    ],
    "one_cycle": [("", s.OneCycle(PEAK, TOTAL))],
    "piecewise": [("", s.Piecewise(PEAK, (40, 70), (0.5, 0.1), WARMUP))],
    "cyclic": [(f"cycle_decay={d:g}", s.Cyclic(PEAK, 30, WARMUP, FLOOR, cycle_decay=d)) for d in (1.0, 0.5)],
}
"""Title -> lines, each with its label."""


def draw(path: Path) -> None:
    """All shapes in one figure."""
    figure, grid = pyplot.subplots(4, 3, figsize=(11, 11), sharex=True, sharey=True, layout="constrained")
    for axes, (title, lines) in zip(grid.flat, SHAPES.items(), strict=True):
        for label, schedule in lines:
            curve = schedule.preview(TOTAL + 10, points=TOTAL + 11)
            axes.plot(curve.steps, curve.rates, label=label or None)
        axes.set_title(title, fontsize=10, family="monospace")
        axes.grid(alpha=0.3)
        if any(label for label, _ in lines):
            axes.legend(fontsize=7, loc="upper right")
    grid[0, 0].set_ylim(0, 1.35)
    for axes in grid[-1]:
        axes.set_xlabel("update")
    for axes in grid[:, 0]:
        axes.set_ylabel("learning rate")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw(FIGURE)
    print(f"wrote {FIGURE}")

"""Schedules: as options, as objects, joined, and of one's own; all count updates.

python examples/schedules.py
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

import capibara_keras as ck
from capibara_keras import schedules as s

TOTAL = 100


@dataclass(frozen=True)
class Staircase(s.WarmupSchedule):
    """Half the rate every 20 updates after the warmup. The base adds the warmup, `preview`, and saving."""

    peak_learning_rate: float
    warmup_steps: int = 0
    warmup_init_lr: float = 0.0

    def after_warmup(self, step: keras.KerasTensor) -> keras.KerasTensor:
        """The rate at a step behind the warmup."""
        stairs = (step - self.warmup_steps) // 20
        return self.peak_learning_rate * 0.5 ** keras.ops.cast(stairs, "float32")


def line(name: str, rates: list[float]) -> None:
    """A row of small blocks, as high as the rate."""
    blocks = " ▁▂▃▄▅▆▇█"
    print(f"{name:24} {''.join(blocks[round(8 * rate)] for rate in rates)}")


def main() -> None:
    """Draw them."""
    for kind in ("cosine_with_warmup", "linear_with_warmup", "wsd", "inverse_sqrt"):
        options = {"decay_ratio": 0.3} if kind == "wsd" else {}
        optimizer = ck.AdamW(1.0, scheduler_type=kind, warmup_ratio=0.1, max_steps=TOTAL, **options)
        line(kind, [optimizer.get_learning_rate(t) for t in range(0, TOTAL + 1, 4)])
    joined = s.join([s.LinearWithWarmup(1.0, 50), s.CosineWithWarmup(0.8, 50, 10)], [50])
    for name, schedule in {"joined": joined, "of one's own": Staircase(1.0, warmup_steps=10)}.items():
        line(name, schedule.preview(TOTAL, points=26).rates.tolist())
    optimizer = ck.SGD(s.LinearWithWarmup(1.0, total_steps=TOTAL))
    optimizer.learning_rate = 0.5  # a callback may do this: the shape goes on from there
    line("lowered by hand", [optimizer.get_learning_rate(t) for t in range(0, TOTAL + 1, 4)])


if __name__ == "__main__":
    main()

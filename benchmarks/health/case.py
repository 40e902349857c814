"""What a kind of training is, and names for the tasks that such kinds are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.health.tasks import TASKS, Task
from benchmarks.health.training import Training

__all__ = ["ALL", "BOTH", "DENSE", "RECURRENT", "REGRESSION", "TRANSFORMERS", "Case", "named"]


@dataclass(frozen=True)
class Case:
    """A kind of training.

    Args:
        name: unique.
        tasks: names of tasks that it is made of.
        make: (task, seed) -> `Training`.
        expected: alerts of which at least one must come; none for a healthy training.
        allowed: alerts that are true of it as well, and count neither way.
        layer: what the expected alert may name, as parts of names; empty for anything.

    Raises:
        KeyError: no such task.
    """

    name: str
    tasks: tuple[str, ...]
    make: Callable[[Task, int], Training]
    expected: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for task in self.tasks:
            TASKS[task]

    @property
    def healthy(self) -> bool:
        """Whether nothing should be said."""
        return not self.expected


def named(tasks: str) -> tuple[str, ...]:
    """Names with blanks between them."""
    return tuple(tasks.split())


ALL = tuple(TASKS)
DENSE = named("digits cancer moons quantiles")
REGRESSION = named("diabetes friedman swiss surface")
BOTH = (*DENSE, *REGRESSION)
RECURRENT = named("adding sine brackets decay")
TRANSFORMERS = named("periodic counting shapes letters")
"""Tasks of one kind, of each half and of the blind part at least one."""

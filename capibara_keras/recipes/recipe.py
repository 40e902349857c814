"""What a recipe is: options, each with a reason and a source."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from capibara_keras.config import VECTORS
from capibara_keras.records import Record

__all__ = ["NO_DECAY", "Choice", "Recipe", "text_of"]

NO_DECAY = (VECTORS,)
"""`weight_decay_exclude` of all recipes: biases, scales and offsets of norms, whatever else is a vector."""


@dataclass(frozen=True, eq=False)
class Choice(Record):
    """One option, and why it has its value.

    Args:
        option: name, as in the configuration; of advice that is no option of an optimizer, what it is about.
        value: what was chosen.
        reason: why.
        source: paper and place; "" where there is none.

    >>> Choice("beta_2", 0.95, "usual for language models", "Brown et al. 2020, Appendix B").option
    'beta_2'
    """

    option: str
    value: Any
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Recipe:
    """Choices, as a function of the recipe's name and arguments alone.

    Args:
        name: key of `RECIPES`.
        arguments: plain data; what a configuration keeps, and the recipe is made from again.
        choices: the options.
        advice: what is not the optimizer's to set: batch, epochs.

    >>> Recipe("research", {}, (Choice("algorithm", "adamw", ""),)).options
    {'algorithm': 'adamw', 'recipe': {'name': 'research'}}
    """

    name: str
    arguments: Mapping[str, Any]
    choices: tuple[Choice, ...]
    advice: tuple[Choice, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """What `Optimizer` takes; the caller's to change."""
        return {c.option: copy(c.value) for c in self.choices} | {"recipe": {"name": self.name, **self.arguments}}


def text_of(choices: Sequence[Choice], advice: Sequence[Choice] = ()) -> str:
    """Choices for people to read, and behind them what is only advice.

    >>> print(text_of([Choice("beta_2", 0.95, "usual for language models", "Brown et al. 2020")]))
    beta_2 = 0.95
        usual for language models [Brown et al. 2020]
    >>> print(text_of([], [Choice("epochs", 20, "more epochs make runs agree")]))
    advice: epochs = 20
        more epochs make runs agree
    """
    lines = []
    for name, choice in [*((c.option, c) for c in choices), *((f"advice: {c.option}", c) for c in advice)]:
        reason = choice.reason + (f" [{choice.source}]" if choice.source else "")
        value = f"{choice.value:.3g}" if isinstance(choice.value, float) else f"{choice.value}"
        lines += [
            f"{name} = {value}",
            *textwrap.wrap(reason, 100, initial_indent="    ", subsequent_indent="    "),
        ]
    return "\n".join(lines)

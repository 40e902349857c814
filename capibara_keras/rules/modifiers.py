"""What can be added to any algorithm; `modified` builds it around a rule."""

from __future__ import annotations

from capibara_keras.rules.base import UpdateRule
from capibara_keras.rules.blockwise import Blockwise
from capibara_keras.rules.cautious import Cautious
from capibara_keras.rules.centralized import Centralized
from capibara_keras.rules.half_state import HalfState
from capibara_keras.rules.kahan import Kahan
from capibara_keras.rules.lookahead import Lookahead

__all__ = ["STATE_PRECISIONS", "modified"]

STATE_PRECISIONS = {"float32": None, "bfloat16": HalfState, "8bit": Blockwise}
"""`state_precision` -> its wrapper."""


def modified(
    rule: UpdateRule,
    *,
    state_precision: str = "float32",
    cautious: bool = False,
    gradient_centralization: bool = False,
    lookahead_steps: int | None = None,
    lookahead_alpha: float = 0.5,
    kahan_summation: bool = False,
) -> UpdateRule:
    """A rule with modifiers around it: the state nearest to the rule, the weights' rounding outermost.

    >>> from capibara_keras.rules import Lion
    >>> modified(Lion(), cautious=True, state_precision="bfloat16")
    Cautious(rule=HalfState(rule=Lion(beta_1=0.9, beta_2=0.99)))
    """
    store = STATE_PRECISIONS[state_precision]
    rule = rule if store is None else store(rule)
    rule = Cautious(rule) if cautious else rule
    rule = Centralized(rule) if gradient_centralization else rule
    rule = rule if lookahead_steps is None else Lookahead(rule, lookahead_steps, lookahead_alpha)
    return Kahan(rule) if kahan_summation else rule

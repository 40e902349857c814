"""Optimization algorithms as pure functions, one file each; `RULES` names them."""

from __future__ import annotations

from capibara_keras.rules.adam import Adam
from capibara_keras.rules.adamw import AdamW
from capibara_keras.rules.base import Slot, UpdateRule
from capibara_keras.rules.sgd import SGD

__all__ = ["RULES", "SGD", "Adam", "AdamW", "Slot", "UpdateRule"]

RULES: dict[str, type] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
"""`algorithm=` of `Optimizer` -> its rule. A new algorithm is a file and a row."""

"""Optimization algorithms as pure functions, one file each; `RULES` names them."""

from __future__ import annotations

from typing import Any

from capibara_keras.rules.adadelta import Adadelta
from capibara_keras.rules.adafactor import Adafactor
from capibara_keras.rules.adagrad import Adagrad
from capibara_keras.rules.adam import Adam
from capibara_keras.rules.adamax import Adamax
from capibara_keras.rules.adamw import AdamW
from capibara_keras.rules.adan import Adan
from capibara_keras.rules.ademamix import AdEMAMix
from capibara_keras.rules.adopt import Adopt
from capibara_keras.rules.base import Rule, Slot, UpdateRule
from capibara_keras.rules.ftrl import Ftrl
from capibara_keras.rules.lamb import Lamb
from capibara_keras.rules.lars import Lars
from capibara_keras.rules.lazyadam import LazyAdam
from capibara_keras.rules.lion import Lion
from capibara_keras.rules.mars import Mars
from capibara_keras.rules.modifiers import STATE_PRECISIONS, modified
from capibara_keras.rules.muon import Muon
from capibara_keras.rules.nadam import Nadam
from capibara_keras.rules.nadamw import NadamW
from capibara_keras.rules.prodigy import Prodigy
from capibara_keras.rules.radam import RAdam
from capibara_keras.rules.rmsprop import RMSprop
from capibara_keras.rules.schedulefree import ScheduleFreeAdamW, ScheduleFreeSGD
from capibara_keras.rules.sgd import SGD
from capibara_keras.rules.soap import Soap
from capibara_keras.rules.wrapper import Wrapper

__all__ = [
    "RULES",
    "STATE_PRECISIONS",
    "Rule",
    "Slot",
    "UpdateRule",
    "Wrapper",
    "modified",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "Adamax",
    "AdamW",
    "Adan",
    "AdEMAMix",
    "Adopt",
    "Ftrl",
    "Lamb",
    "Lars",
    "Lion",
    "Nadam",
    "NadamW",
    "RAdam",
    "RMSprop",
    "SGD",
    "Muon",
    "Soap",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Prodigy",
    "Mars",
    "LazyAdam",
]

RULES: dict[str, type[Any]] = {
    rule.__name__.lower(): rule
    for rule in (
        Adam,
        AdamW,
        SGD,
        Nadam,
        NadamW,
        RAdam,
        Adamax,
        Adagrad,
        Adadelta,
        RMSprop,
        Ftrl,
        Lion,
        Lamb,
        Lars,
        Adopt,
        Adan,
        AdEMAMix,
        Adafactor,
        Muon,
        Soap,
        ScheduleFreeAdamW,
        ScheduleFreeSGD,
        Prodigy,
        Mars,
        LazyAdam,
    )
}
"""`algorithm=` of `Optimizer` -> its rule. A new algorithm is a file and a row."""

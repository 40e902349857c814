"""All shapes by name. A new one is a file and a row."""

from __future__ import annotations

from capibara_keras.schedules.base import WarmupSchedule
from capibara_keras.schedules.constant_with_warmup import ConstantWithWarmup
from capibara_keras.schedules.cosine_with_warmup import CosineWithWarmup
from capibara_keras.schedules.cyclic import Cyclic
from capibara_keras.schedules.exponential import Exponential
from capibara_keras.schedules.inverse_sqrt import InverseSqrt
from capibara_keras.schedules.linear_with_warmup import LinearWithWarmup
from capibara_keras.schedules.one_cycle import OneCycle
from capibara_keras.schedules.piecewise import Piecewise
from capibara_keras.schedules.polynomial import Polynomial
from capibara_keras.schedules.wsd import WSD

__all__ = ["SCHEDULES"]

SCHEDULES: dict[str, type[WarmupSchedule]] = {
    "cosine_with_warmup": CosineWithWarmup,
    "linear_with_warmup": LinearWithWarmup,
    "polynomial": Polynomial,
    "constant_with_warmup": ConstantWithWarmup,
    "inverse_sqrt": InverseSqrt,
    "wsd": WSD,
    "exponential": Exponential,
    "one_cycle": OneCycle,
    "piecewise": Piecewise,
    "cyclic": Cyclic,
}
"""The values of `scheduler_type`."""

"""Learning-rate schedules: Keras schedules with a warmup, for any Keras optimizer.

>>> from capibara_keras.schedules import SCHEDULES, CosineWithWarmup
>>> SCHEDULES["cosine_with_warmup"] is CosineWithWarmup
True
"""

from capibara_keras.schedules.base import FloorSchedule, Preview, Schedule, WarmupSchedule
from capibara_keras.schedules.constant_with_warmup import ConstantWithWarmup
from capibara_keras.schedules.cosine_with_warmup import CosineWithWarmup
from capibara_keras.schedules.custom import Custom
from capibara_keras.schedules.cyclic import Cyclic
from capibara_keras.schedules.exponential import Exponential
from capibara_keras.schedules.inverse_sqrt import InverseSqrt
from capibara_keras.schedules.joined import Join, join
from capibara_keras.schedules.linear_with_warmup import LinearWithWarmup
from capibara_keras.schedules.one_cycle import OneCycle
from capibara_keras.schedules.piecewise import Piecewise
from capibara_keras.schedules.plan import OPTION_NAMES, SchedulePlan
from capibara_keras.schedules.polynomial import Polynomial
from capibara_keras.schedules.table import SCHEDULES
from capibara_keras.schedules.wsd import WSD

__all__ = [
    "OPTION_NAMES",
    "SCHEDULES",
    "WSD",
    "ConstantWithWarmup",
    "CosineWithWarmup",
    "Custom",
    "Cyclic",
    "Exponential",
    "FloorSchedule",
    "InverseSqrt",
    "Join",
    "LinearWithWarmup",
    "OneCycle",
    "Piecewise",
    "Polynomial",
    "Preview",
    "Schedule",
    "SchedulePlan",
    "WarmupSchedule",
    "join",
]

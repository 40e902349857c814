"""Optimizers, schedules and callbacks for Keras 3."""

from __future__ import annotations

from capibara_keras import callbacks, monitoring, rules, schedules, tuning
from capibara_keras.batchnorm import sync_batchnorm
from capibara_keras.callbacks import (
    Attach,
    ClippingStatistics,
    GradientAccumulationScheduler,
    HealthMonitor,
    LogStatistics,
    Resume,
)
from capibara_keras.catalog import AlgorithmDescription, algorithms
from capibara_keras.config import OptimizerConfig
from capibara_keras.constructors import (
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    AdEMAMix,
    Adopt,
    Ftrl,
    Lamb,
    Lars,
    LazyAdam,
    Lion,
    Mars,
    Muon,
    Nadam,
    NadamW,
    Prodigy,
    RAdam,
    RMSprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from capibara_keras.errors import CapibaraError, CheckpointError, ConfigError, TuningError
from capibara_keras.groups import Group
from capibara_keras.optimizer import Optimizer
from capibara_keras.records import StepRecord
from capibara_keras.tuning import OptimizerAutoTuner
from capibara_keras.watch import Watch

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Adopt",
    "Ftrl",
    "Lamb",
    "Lars",
    "Lion",
    "Nadam",
    "NadamW",
    "RAdam",
    "RMSprop",
    "LazyAdam",
    "Mars",
    "Muon",
    "Prodigy",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "AlgorithmDescription",
    "Attach",
    "CapibaraError",
    "CheckpointError",
    "ClippingStatistics",
    "ConfigError",
    "GradientAccumulationScheduler",
    "Group",
    "HealthMonitor",
    "LogStatistics",
    "Optimizer",
    "OptimizerAutoTuner",
    "OptimizerConfig",
    "Resume",
    "StepRecord",
    "TuningError",
    "Watch",
    "algorithms",
    "callbacks",
    "monitoring",
    "rules",
    "schedules",
    "sync_batchnorm",
    "tuning",
]

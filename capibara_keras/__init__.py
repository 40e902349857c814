"""Optimizers, schedules and callbacks for Keras 3."""

from __future__ import annotations

from capibara_keras import callbacks, rules, schedules, tuning
from capibara_keras.algorithms import SGD, Adam, AdamW
from capibara_keras.batchnorm import sync_batchnorm
from capibara_keras.callbacks import Attach, ClippingStatistics, GradientAccumulationScheduler, LogStatistics
from capibara_keras.config import OptimizerConfig
from capibara_keras.errors import CapibaraError, CheckpointError, ConfigError, TuningError
from capibara_keras.groups import Group
from capibara_keras.optimizer import Optimizer
from capibara_keras.records import StepRecord
from capibara_keras.tuning import OptimizerAutoTuner

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Attach",
    "CapibaraError",
    "CheckpointError",
    "ClippingStatistics",
    "ConfigError",
    "GradientAccumulationScheduler",
    "Group",
    "LogStatistics",
    "Optimizer",
    "OptimizerAutoTuner",
    "OptimizerConfig",
    "StepRecord",
    "TuningError",
    "callbacks",
    "rules",
    "schedules",
    "sync_batchnorm",
    "tuning",
]

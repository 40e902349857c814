"""Optimizers, schedules and callbacks for Keras 3."""

from __future__ import annotations

from capibara_keras import callbacks, migration, monitoring, recipes, rules, schedules, tuning
from capibara_keras.batchnorm import sync_batchnorm
from capibara_keras.callbacks import (
    Attach,
    ClippingStatistics,
    GradientAccumulationScheduler,
    HealthMonitor,
    LogStatistics,
    Resume,
    TensorBoardStatistics,
    TrainingReport,
    Trajectory,
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
    Soap,
)
from capibara_keras.errors import CapibaraError, CheckpointError, ConfigError, TuningError
from capibara_keras.groups import Group
from capibara_keras.landscape import loss_landscape, trajectory_plane
from capibara_keras.monitoring.report import write_page as write_report
from capibara_keras.optimizer import Optimizer
from capibara_keras.rate_test import range_test
from capibara_keras.records import StepRecord
from capibara_keras.schedule_plot import plot_schedule, schedule_curve
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
    "Soap",
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
    "TrainingReport",
    "TensorBoardStatistics",
    "Trajectory",
    "TuningError",
    "Watch",
    "algorithms",
    "callbacks",
    "loss_landscape",
    "migration",
    "monitoring",
    "plot_schedule",
    "range_test",
    "recipes",
    "rules",
    "schedule_curve",
    "schedules",
    "sync_batchnorm",
    "trajectory_plane",
    "tuning",
    "write_report",
]

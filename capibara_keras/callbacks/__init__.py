"""Callbacks: they bring the optimizer what it cannot see, and the user what it measured."""

from __future__ import annotations

from capibara_keras.callbacks.accumulation_scheduler import GradientAccumulationScheduler
from capibara_keras.callbacks.attach import Attach
from capibara_keras.callbacks.clipping_statistics import ClippingStatistics
from capibara_keras.callbacks.health_monitor import HealthMonitor
from capibara_keras.callbacks.log_statistics import LogStatistics
from capibara_keras.callbacks.resume import Resume
from capibara_keras.callbacks.tensorboard import TensorBoardStatistics
from capibara_keras.callbacks.training_report import TrainingReport
from capibara_keras.callbacks.trajectory import Trajectory

__all__ = [
    "Attach",
    "ClippingStatistics",
    "GradientAccumulationScheduler",
    "HealthMonitor",
    "LogStatistics",
    "Resume",
    "TrainingReport",
    "TensorBoardStatistics",
    "Trajectory",
]

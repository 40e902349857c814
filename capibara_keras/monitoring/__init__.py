"""What training is doing, in NumPy; nothing here imports the optimizer."""

from __future__ import annotations

from capibara_keras.monitoring.alerts import Alert
from capibara_keras.monitoring.convergence import ConvergenceAnalysis
from capibara_keras.monitoring.gradients import GradientAnalysis, LayerGradients, analyze
from capibara_keras.monitoring.landscape import LossLine, LossPlane
from capibara_keras.monitoring.metrics import LayerMetrics, OptimizationMetrics
from capibara_keras.monitoring.monitor import Monitor
from capibara_keras.monitoring.observation import Observation, Probe, Subject
from capibara_keras.monitoring.rate_range import RangeTest
from capibara_keras.monitoring.rules import DEFAULT_RULES, Finding, HealthRule
from capibara_keras.monitoring.schedule_plots import ScheduleCurve

__all__ = [
    "DEFAULT_RULES",
    "Alert",
    "ConvergenceAnalysis",
    "Finding",
    "GradientAnalysis",
    "HealthRule",
    "LayerGradients",
    "LayerMetrics",
    "LossLine",
    "LossPlane",
    "Monitor",
    "Observation",
    "OptimizationMetrics",
    "Probe",
    "RangeTest",
    "ScheduleCurve",
    "Subject",
    "analyze",
]

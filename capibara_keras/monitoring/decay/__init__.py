"""Fitting a curve that falls towards a floor to a series, and what else the data allow."""

from __future__ import annotations

from capibara_keras.monitoring.decay.family import DONE, SLOWEST, Decay
from capibara_keras.monitoring.decay.fitting import Fit, fit
from capibara_keras.monitoring.decay.profile import profile

__all__ = ["DONE", "SLOWEST", "Decay", "Fit", "fit", "profile"]

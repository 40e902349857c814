"""Figures of a training: for each type first the numbers, then the drawing."""

from __future__ import annotations

from capibara_keras.monitoring.plots.generate import generate
from capibara_keras.monitoring.plots.types import PLOTS, USUAL

__all__ = ["PLOTS", "USUAL", "generate"]

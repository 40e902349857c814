"""What training is doing, in NumPy; nothing here imports the optimizer."""

from __future__ import annotations

from capibara_keras.monitoring.gradients import GradientAnalysis, LayerGradients, analyze

__all__ = ["GradientAnalysis", "LayerGradients", "analyze"]

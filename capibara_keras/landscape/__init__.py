"""The loss around a model's weights, from the model and a batch of data."""

from __future__ import annotations

from capibara_keras.landscape.landscapes import around, loss_landscape, trajectory_plane

__all__ = ["around", "loss_landscape", "trajectory_plane"]

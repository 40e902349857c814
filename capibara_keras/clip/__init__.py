"""Gradient clipping as pure functions of the gradients that were summed over replicas and averaged."""

from capibara_keras.clip.adaptive import AdaptiveClip
from capibara_keras.clip.base import ClipPolicy, Limits, Norms
from capibara_keras.clip.fixed import ClipByGlobalNorm, ClipByNorm, ClipByValue, Limited, NoClip
from capibara_keras.clip.unitwise import UnitwiseClip

__all__ = [
    "AdaptiveClip",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "ClipPolicy",
    "Limited",
    "Limits",
    "NoClip",
    "Norms",
    "UnitwiseClip",
]

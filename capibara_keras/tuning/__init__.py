"""Searches the options of an optimizer: `OptimizerAutoTuner`."""

from __future__ import annotations

from capibara_keras.tuning.auto_tuner import OptimizerAutoTuner
from capibara_keras.tuning.halving import Halving
from capibara_keras.tuning.hypermodel import sample
from capibara_keras.tuning.search_space import SearchSpace
from capibara_keras.tuning.trials import TrialRecord

__all__ = ["Halving", "OptimizerAutoTuner", "SearchSpace", "TrialRecord", "sample"]

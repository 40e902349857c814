"""`Optimizer`, in layers: schedules, steps, looking, making; its many methods hand over to parts that stand alone."""

from capibara_keras.optimizer.making import Optimizer

__all__ = ["Optimizer"]

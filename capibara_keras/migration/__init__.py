"""Coming from elsewhere: optimizers of Keras with their state, options of torch, Hugging Face and tf-models.

>>> from capibara_keras.migration import from_hugging_face
>>> from_hugging_face({"learning_rate": 2e-5, "warmup_ratio": 0.1})["scheduler_type"]
'linear_with_warmup'
"""

from capibara_keras.migration.hugging_face import from_hugging_face
from capibara_keras.migration.keras3 import keras_options
from capibara_keras.migration.micro_batches import MicroBatchSchedule
from capibara_keras.migration.overlaid_warmup import OverlaidWarmup
from capibara_keras.migration.tf_models import from_tf_models
from capibara_keras.migration.torch_optim import from_torch

__all__ = [
    "MicroBatchSchedule",
    "OverlaidWarmup",
    "from_hugging_face",
    "from_tf_models",
    "from_torch",
    "keras_options",
]

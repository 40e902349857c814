"""One class per algorithm, with Keras' names, positions and defaults, so that swapping the import is enough."""

from __future__ import annotations

from capibara_keras.constructors.accumulating import Adadelta, Adagrad, Ftrl
from capibara_keras.constructors.adam import Adam, AdamW
from capibara_keras.constructors.adam_family import Adamax, Nadam, NadamW, RAdam
from capibara_keras.constructors.automatic import Prodigy
from capibara_keras.constructors.common import CommonOptions, KerasOptions, Named
from capibara_keras.constructors.large_batch import Lamb, Lars, Lion
from capibara_keras.constructors.matrix import Muon, Soap
from capibara_keras.constructors.recent import Adan, AdEMAMix, Adopt, Mars
from capibara_keras.constructors.running_mean import Adafactor, RMSprop
from capibara_keras.constructors.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from capibara_keras.constructors.sgd import SGD
from capibara_keras.constructors.sparse import LazyAdam

__all__ = [
    "SGD",
    "AdEMAMix",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Adopt",
    "CommonOptions",
    "Ftrl",
    "KerasOptions",
    "Lamb",
    "Lars",
    "Lion",
    "Nadam",
    "NadamW",
    "Named",
    "RAdam",
    "RMSprop",
    "LazyAdam",
    "Mars",
    "Muon",
    "Soap",
    "Prodigy",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
]

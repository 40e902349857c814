"""Which algorithms there are: memory, paper, and when to use them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from capibara_keras.records import Record
from capibara_keras.rules import RULES, UpdateRule

__all__ = ["AlgorithmDescription", "algorithms", "state_bytes"]

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2, "int32": 4, "int8": 1, "uint8": 1}


@dataclass(frozen=True, eq=False)
class AlgorithmDescription(Record):
    """One row of `algorithms`.

    Args:
        name: `algorithm=` of `Optimizer`.
        class_name: of the class that has it, `capibara_keras.<class_name>`.
        state_bytes_per_parameter: of a float32 matrix of 1024 x 1024, with the rule's default options.
        default_learning_rate: of `Optimizer(name)`; the classes that Keras has too have Keras' default.
        paper: where it comes from.
        use: when to choose it.

    >>> algorithms()[0]["paper"]
    'Kingma & Ba 2015, Algorithm 1'
    """

    name: str
    class_name: str
    state_bytes_per_parameter: float
    default_learning_rate: float
    paper: str
    use: str


def algorithms() -> list[AlgorithmDescription]:
    """All algorithms, those that most networks are trained with first.

    >>> import capibara_keras as ck
    >>> [a.name for a in ck.algorithms() if a.state_bytes_per_parameter < 1]
    ['sgd', 'adafactor']
    """
    shape = (1024, 1024)
    return [
        AlgorithmDescription(
            name=name,
            class_name=rule.__name__,
            state_bytes_per_parameter=state_bytes(rule(), shape) / math.prod(shape),
            default_learning_rate=rule.default_learning_rate,
            paper=rule.paper,
            use=rule.use,
        )
        for name, rule in RULES.items()
    ]


def state_bytes(rule: UpdateRule, shape: tuple[int, ...], dtype: str = "float32") -> int:
    """Bytes of a rule's state for one variable.

    Args:
        dtype: of the variable.

    >>> from capibara_keras.rules import Lion
    >>> state_bytes(Lion(), (10, 10))
    400
    """
    slots = rule.slots_for(shape, dtype)
    return sum(
        math.prod(shape if s.shape is None else s.shape)
        * BYTES[s.dtype or ("float64" if dtype == "float64" else "float32")]
        for s in slots
    )

"""AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from capibara_keras.rules.adam import Adam

__all__ = ["AdamW"]


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2).

        w_t = w_{t-1} - rate (u_t + weight_decay w_{t-1}),  u_t as in Adam

    Every rule of this package decays its weights this way unless told otherwise, so the update is Adam's own;
    the name says that decay is meant to be used, and sets its default in the `AdamW` optimizer.

    >>> AdamW().slots_for((2, 3)) == Adam().slots_for((2, 3))
    True
    """

    paper: ClassVar[str] = "Loshchilov & Hutter 2019, Algorithm 2"
    use: ClassVar[str] = "Transformers, and most networks that are regularised by weight decay."

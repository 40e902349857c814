"""What costs more than a norm, and is looked at now and then."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from capibara_keras import backend, inspection
from capibara_keras.monitoring import Probe
from capibara_keras.watch.followed import Followed

__all__ = ["Prober"]

INSPECTED = 200
"""Updates between two looks at weights and moments, which cost a copy of them; fewer at the start: each look comes
when training is twice as old as at the one before."""

FILLED = 10
"""Updates after which the means of gradients have filled."""


class Prober:
    """Makes probes of one optimizer.

    Args:
        followed: of it.
    """

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self._inspected_at: int | None = None
        self._equal_columns = self._below_epsilon = np.zeros(0)

    def probe(self, optimizer: Any, update: int, attempts: int) -> Probe:
        """A probe of the state after an update.

        Args:
            optimizer: in that state, with `statistics_every` set.
            update: index of the update.
            attempts: updates so far, skipped ones included.
        """
        last_active, entries, (dot, square), _ = (backend.fetch(x) for x in optimizer._state.probes)
        plan = self.followed.plan
        if self._is_due(update):
            self._inspect(optimizer, update)
        half = entries[self.followed.kept] if plan.half_precision else np.zeros((0, 2))
        known = update >= FILLED
        return Probe(
            silent_updates=attempts - last_active,
            unit_layers=self._unit_layers(),
            zero_fraction=half[:, 0],
            equal_columns=self._equal_columns,
            below_epsilon=self._below_epsilon,
            half_precision=(half[:, 1] > 0).astype(float),
            small_entries=half[:, 1],
            gradient_dot=float(dot) if known else math.nan,
            gradient_square=float(square) if known else math.nan,
        )

    def _unit_layers(self) -> np.ndarray:
        """The layer of each unit that is watched."""
        plan, layer_of = self.followed.plan, self.followed.subject.layer_of
        place = {i: k for k, i in enumerate(self.followed.kept)}
        layers = [layer_of[place[i]] for i in plan.watched]
        return np.repeat(np.array(layers, np.int64), plan.unit_sizes)

    def _is_due(self, update: int) -> bool:
        then = self._inspected_at
        return then is None or update - then >= min(then + 1, INSPECTED)

    def _inspect(self, optimizer: Any, update: int) -> None:
        """Look at samples of the weights and of the second moments."""
        self._inspected_at = update
        kept, variables = self.followed.kept, optimizer._trainable_variables
        self._equal_columns = np.array([inspection.equal_columns(variables[i]) for i in kept])
        self._below_epsilon = np.array([self._share_below_epsilon(optimizer, i, update) for i in kept])

    def _share_below_epsilon(self, optimizer: Any, i: int, update: int) -> float:
        """Of the second moment of variable i; nan where it has none, or none in floating point."""
        variable = self.followed.plan.variables[i]
        rule: Any = self.followed.plan.groups[variable.group].rule.innermost
        updates = update + 1 - variable.joined
        moment = optimizer._rows[i].slots.get("v") if rule.family == "adam" else None
        if moment is None or "float" not in keras.backend.standardize_dtype(moment.dtype) or updates <= 0:
            return math.nan
        correction = 1 - rule.beta_2**updates if rule.correct_bias else 1.0
        return inspection.below_epsilon(moment, correction, rule.epsilon)

"""Algorithms that take gradients in one point and are evaluated in another."""

from __future__ import annotations

from keras import ops

from capibara_keras.core.configurable import Configurable
from capibara_keras.planning import group_numbers
from capibara_keras.variables import compute_dtype

__all__ = ["TwoPoints"]


class TwoPoints(Configurable):
    """Moves between the point of training and the point of evaluation."""

    def evaluation_mode(self) -> None:
        """Put the point to be evaluated and saved into the variables, where that is not the one in which gradients are
        taken (Schedule-Free); nothing for other algorithms, or if it is there already.

        `fit` ends with it, and the next update goes back by itself; but its gradient is that of the point which it
        found. The callbacks of this package move between the points also around validation, at the end of an epoch,
        and before a training goes on.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.ScheduleFreeSGD(learning_rate=0.5)
        >>> for g in (1.0, 1.0):
        ...     optimizer.apply([keras.ops.array([g])], [w])
        >>> optimizer.evaluation_mode()
        >>> round(float(w[0]), 6)  # the mean of 0.5 and 0
        0.25
        """
        self._move(True)

    def training_mode(self) -> None:
        """Put the point in which gradients are taken back into the variables; see `evaluation_mode`."""
        self._move(False)

    @property
    def has_two_points(self) -> bool:
        """Whether `evaluation_mode` does anything."""
        return any(part.rule.two_points for part in self._config.parts)

    @property
    def _is_evaluating(self) -> bool:
        flag = self._state.evaluating if self.built else []
        return bool(flag) and int(ops.convert_to_numpy(flag[0])) == 1

    def _move(self, evaluating: bool) -> None:
        if not (self.built and self.has_two_points) or self._is_evaluating == evaluating:
            return
        updates, rows = int(ops.convert_to_numpy(self._iterations)), self._rows
        numbers = group_numbers(self._config, [row.path for row in rows])
        for v, row, number in zip(self._trainable_variables, rows, numbers, strict=True):
            rule = self._config.parts[number].rule
            if rule.two_points and row.slots and updates > row.joined:
                slots = tuple(ops.convert_to_tensor(slot) for slot in row.slots.values())
                p = ops.cast(v, compute_dtype(v))
                v.assign(ops.cast(rule.evaluation(p, slots) if evaluating else rule.training(p, slots), v.dtype))
        self._state.evaluating[0].assign(int(evaluating))

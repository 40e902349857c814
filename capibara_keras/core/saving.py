"""Configuration and state as plain data and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import checkpoint, errors
from capibara_keras.core.accumulating import Accumulating
from capibara_keras.errors import CheckpointError
from capibara_keras.warning import warn

__all__ = ["Core"]


class Core(Accumulating):
    """A Keras optimizer for one `OptimizerConfig`.

    The options of the configuration are attributes. Those that are numbers of the algorithm (`beta_1`,
    `weight_decay`, the clip limit, …) may be assigned at any time, without a new trace; the others until the
    optimizer is built, and later where they do not change the state that is kept.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        base = keras.optimizers.Optimizer
        idle = [name for name in _NEVER_CALLED if getattr(cls, name) is not getattr(base, name)]
        if idle:
            raise errors.ConfigError(
                f"{cls.__name__} overrides {', '.join(idle)}, which is never called here. Write the formula as a "
                "`capibara_keras.rules.Rule`, or change the gradients in `apply`"
            )

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments, as plain data."""
        options = self._config.to_options() | {"name": self.name, "loss_scale_factor": self.loss_scale_factor}
        if isinstance(self._learning_rate, keras.Variable):
            current = float(ops.convert_to_numpy(self._learning_rate))
            configured = self._config.learning_rate
            options["learning_rate"] = configured if _same(current, configured) else current
        elif not (self._config.schedule is not None and self._config.use_scheduler):
            options["learning_rate"] = keras.saving.serialize_keras_object(self._learning_rate)
        return options

    def save_own_variables(self, store: Any) -> None:
        """Write the state into one of Keras' stores (`.keras`, `.weights.h5`): before `build`, what was loaded."""
        if self._pending is not None:
            description, arrays = self._pending
            checkpoint.write(description, arrays, store)
            return
        joined = {row.path: row.joined for row in self._states.rows.values() if row.joined}
        still_built_on = zip(self._rows, self._trainable_variables, strict=True) if self.built else ()
        frozen = [row.path for row, v in still_built_on if not getattr(v, "trainable", True)]
        checkpoint.save(self._inventory(), self._config, joined, [*self._states.frozen, *frozen], store)

    def load_own_variables(self, store: Any) -> None:
        """Restore the state from one of Keras' stores; before `build`, it is kept until then.

        Raises:
            CheckpointError: the state belongs to other variables or to another algorithm; nothing is written.
        """
        loaded = checkpoint.load(store)
        if loaded is None:
            warn(f"{self.name}: the file holds no optimizer state; starting afresh")
        elif self.built:
            self._restore(*loaded)
        else:
            self._set(_pending=loaded)

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Restore the state from a list: the values of `variables`, in order.

        Raises:
            CheckpointError: not as many values as variables; nothing is written.
        """
        if self.built and len(weights) != len(self.variables):
            raise CheckpointError(
                f"set_weights: {len(weights)} values for {len(self.variables)} variables; give one for each of "
                "`optimizer.variables`, of an optimizer with the same options"
            )
        super().set_weights(weights)

    @property
    def has_loaded_state(self) -> bool:
        """Whether state was loaded that waits for `build`."""
        return self._pending is not None


_NEVER_CALLED = (
    "update_step",
    "_backend_update_step",
    "_backend_apply_gradients",
    "_apply_weight_decay",
    "_clip_gradients",
)
"""Methods of Keras' optimizers in whose place there is the pipeline."""


def _same(stored: float, configured: Any) -> bool:
    return not callable(configured) and stored in (configured, float(np.float32(configured)))

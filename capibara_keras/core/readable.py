"""Reading back what the last updates did."""

from __future__ import annotations

import numpy as np
from keras import ops

from capibara_keras import backend, errors, pipeline, readings
from capibara_keras.core.stateful import Stateful
from capibara_keras.readings import RecentUpdates
from capibara_keras.records import StepRecord
from capibara_keras.variables import path_of

__all__ = ["Readable"]


class Readable(Stateful):
    """What the last updates did, as numbers."""

    def statistics(self) -> StepRecord:
        """What the last update did. Parameter and update norms are `nan` unless `step` measured them.

        On the JAX backend, `fit` keeps variables to itself until `model.jax_state_sync()`.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD(learning_rate=0.5)
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([1.0, 2.0])])
        >>> optimizer.statistics().gradient_norm
        5.0
        """
        if not self.built:
            raise errors.ConfigError("statistics: there are none before the first update")
        if backend.tracing([]):
            raise errors.ConfigError(
                "statistics: numbers cannot be read inside a compiled function. There, call `apply` or `step` without "
                "`return_metrics`, and `optimizer.statistics()` outside"
            )
        latest = readings.recent(self._state, length=1)
        values = {name: float(column[0]) if len(column) else np.nan for name, column in latest.statistics.items()}
        skipped, clipped = values.pop("skipped") == 1, values.pop("clipped") == 1
        updates = int(ops.convert_to_numpy(self._iterations))
        return StepRecord(update=max(updates - (not skipped), 0), clipped=clipped, skipped=skipped, **values)

    def recent_updates(self, since: int = 0) -> RecentUpdates:
        """What the last updates did: up to 256, with norms by variable for 64. Reading every so often misses none.

        Args:
            since: number of the first update wanted, counted with the skipped ones.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([1.0, 2.0])])
        >>> optimizer.recent_updates().statistics["gradient_norm"].tolist()
        [5.0]
        """
        if not self.built:
            raise errors.ConfigError("recent_updates: there are none before the first update")
        return readings.recent(self._state, errors.integer("since", since, 0))

    def clipped_share(self) -> float:
        """Share of the last 100 updates in which clipping acted; `nan` where clipping is off.

        >>> import capibara_keras as ck
        >>> ck.SGD().clipped_share()
        nan
        """
        if not self.built or not self._config.clips:
            return float("nan")
        clipped = readings.recent(self._state, length=100).statistics["clipped"]
        return float(np.mean(clipped)) if len(clipped) else float("nan")

    def layer_norms(self) -> dict[str, float]:
        """L2 norm of the last gradient of each layer, before clipping; `nan` where it had none.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [keras.Variable([0.0, 0.0], name="w")])
        >>> optimizer.layer_norms()
        {'w': 5.0}
        """
        layers: dict[str, list[float]] = {}
        for row, norm in zip(self._rows if self.built else [], self._latest_gradient_norms(), strict=True):
            known = [] if np.isnan(norm) else [float(norm)]
            layers.setdefault(row.path.rsplit("/", 1)[0], []).extend(known)
        return {layer: sum(x**2 for x in known) ** 0.5 if known else float("nan") for layer, known in layers.items()}

    def _latest_gradient_norms(self) -> np.ndarray:
        """L2 norms of the last update's gradients, one per variable."""
        if not self.built:
            return np.zeros(0)
        norms = readings.recent(self._state, length=1).variable_norms["gradient_norm"]
        return norms[0] if len(norms) else np.full(len(self._rows), np.nan)

    def counters(self) -> dict[str, int]:
        """How many micro-batches were seen, and how many updates were skipped or clipped.

        >>> import capibara_keras as ck, keras
        >>> optimizer = ck.SGD()
        >>> optimizer.apply([keras.ops.array([float("nan")])], [keras.Variable([1.0])])
        >>> optimizer.counters()
        {'micro_steps': 1, 'skipped': 1, 'clipped': 0, 'spikes': 0, 'dropped': 0}
        """
        return readings.counters(self._state) if self.built else dict.fromkeys(pipeline.COUNTERS, 0)

    def raise_if_nonfinite(self) -> None:
        """Raise if the last update was skipped for a gradient that was not finite (`nonfinite="raise"`).

        Raises:
            FloatingPointError: names the variables.
        """
        skips = self.counters()["skipped"]
        if self.built and self.statistics().skipped and skips != self._raised:
            self._set(_raised=skips)  # a call that only adds to the next window does not raise again
            norms = self._latest_gradient_norms()
            bad = [path_of(v) for v, x in zip(self._trainable_variables, norms, strict=True) if np.isinf(x)]
            raise FloatingPointError(
                f"update {int(ops.convert_to_numpy(self._iterations))}: the gradient is not finite in "
                f"{', '.join(bad)}; weights and state are as before"
            )

"""How much is clipped, in Keras' logs."""

from __future__ import annotations

from capibara_keras import errors
from capibara_keras.callbacks.log_statistics import LogStatistics

__all__ = ["ClippingStatistics"]


class ClippingStatistics(LogStatistics):
    """Adds `gradient_norm`, `clip_threshold` and `clipped_share` (of the last 100 updates) to Keras' logs.

    Args:
        every: batches between two readings, see `LogStatistics`.
        per_layer: also `gradient_norm/<layer>`.

    >>> import capibara_keras as ck, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(ck.SGD(learning_rate=0.1, global_clipnorm=0.5), "mse")
    >>> x = np.ones((8, 1))
    >>> history = model.fit(x, 9 * x, batch_size=4, verbose=0, callbacks=[ck.ClippingStatistics()])
    >>> history.history["clip_threshold"], history.history["clipped_share"]
    ([0.5], [1.0])
    """

    def __init__(self, every: int = 1, per_layer: bool = False) -> None:
        super().__init__(every, ("gradient_norm", "clip_threshold", "clipped_share"))
        self.per_layer = errors.boolean("per_layer", per_layer)

    def read(self) -> dict[str, float]:
        """What goes into the logs."""
        values = super().read()
        if self.per_layer:
            values |= {f"gradient_norm/{layer}": norm for layer, norm in self.optimizer.layer_norms().items()}
        return values

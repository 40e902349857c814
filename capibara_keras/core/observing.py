"""The loss, as far as an optimizer sees it."""

from __future__ import annotations

from typing import Any

from keras import ops

from capibara_keras import backend, errors
from capibara_keras.core.two_points import TwoPoints
from capibara_keras.types import Tensor
from capibara_keras.variables import scalar_dtype

__all__ = ["Observing"]


class Observing(TwoPoints):
    """Scales the loss, and takes note of it."""

    def scale_loss(self, loss: Tensor) -> Tensor:
        """The loss before its gradient is taken: multiplied by `loss_scale_factor`, and divided by the micro-batches
        of a window where `loss_divided` asks for that.

        >>> import capibara_keras as ck
        >>> ck.Adam(loss_scale_factor=8.0).scale_loss(2.0)
        16.0
        """
        if backend.observes(loss):
            self._take_loss(loss)
        loss = super().scale_loss(loss)
        if not (self._config.loss_divided and self._config.accumulates) or self._wrapped:
            return loss
        full = self._state.window[1] if self.built else self._config.accumulation_steps
        return loss / ops.cast(full, getattr(loss, "dtype", "float32"))

    def observe(self, loss: Any) -> None:
        """Tell the optimizer the loss of a batch, before `apply`; also inside a compiled step. In `fit` on TensorFlow
        it knows the loss by itself. Of several before one update (micro-batches) the mean is kept.

        Args:
            loss: scalar, neither scaled nor divided; number or tensor.

        Raises:
            ConfigError: not a scalar; or inside a replica, where each has another loss.

        >>> import capibara_keras as ck, keras
        >>> w, optimizer = keras.Variable([1.0]), ck.SGD()
        >>> optimizer.build([w])
        >>> optimizer.observe(0.25)
        >>> optimizer.apply([keras.ops.array([1.0])], [w])
        >>> optimizer.statistics().loss
        0.25
        """
        if not self.built:
            raise errors.ConfigError("observe: the optimizer is not built; call `optimizer.build(variables)` first")
        if len(getattr(loss, "shape", ())):
            raise errors.ConfigError(f"observe: expected a scalar, received shape {tuple(loss.shape)}")
        if backend.in_replica():
            raise errors.ConfigError(
                "observe: each replica has another loss. Give the reduced one to the monitor on the host: "
                "`monitor.update(loss=...)`"
            )
        self._take_loss(loss)

    def _take_loss(self, loss: Any) -> None:
        if self.built:
            dtype = scalar_dtype()
            self._state.losses.assign_add(ops.stack([ops.cast(loss, dtype), ops.ones((), dtype)]))
        elif not backend.tracing(()):
            self._set(_early_loss=loss)  # of the very first batch, which `apply` builds the optimizer on

    @property
    def _arrives_divided(self) -> bool:
        """Whether the loss has been divided: under a wrapper of Keras' nobody calls `scale_loss`."""
        return self._config.loss_divided and self._config.accumulates and not self._wrapped

"""The other forms of `apply` that Keras knows: pairs, and values that are passed in and out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capibara_keras import errors
from capibara_keras.core.updating import Updating
from capibara_keras.types import Tensor, Variable

__all__ = ["Applying"]


class Applying(Updating):
    """Applies pairs, and passes state through."""

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor | None, Variable]]) -> Variable:
        """`apply`, of pairs of a gradient and its variable.

        Returns:
            The number of updates so far.

        Raises:
            ConfigError: no pairs, or what is none; as in `apply`.

        >>> import capibara_keras as ck, keras
        >>> w = keras.Variable([1.0])
        >>> int(ck.SGD(learning_rate=0.5).apply_gradients([(keras.ops.array([1.0]), w)]))
        1
        """
        pairs = list(grads_and_vars)
        if not pairs:
            raise errors.ConfigError(
                "apply_gradients: received no pairs of gradient and variable; a `zip` can be read only once"
            )
        for pair in pairs:
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise errors.ConfigError(
                    f"apply_gradients: expected pairs of gradient and variable, received a {type(pair).__name__}; "
                    "`apply` takes two lists"
                )
        self.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])
        return self.iterations

    def stateless_apply(
        self,
        optimizer_variables: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        trainable_variables: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """An update of values that are passed in and out, as with every Keras optimizer: on JAX.

        Args:
            optimizer_variables: values of `optimizer.variables`.
            grads, trainable_variables: a gradient and a value for each variable that the optimizer was built with.

        Returns:
            The new values of the trainable variables, and of the optimizer's.

        Raises:
            ConfigError: not as many values as variables; gradients as in `apply`.
        """
        if self.built and len(trainable_variables) != len(self._trainable_variables):
            raise errors.ConfigError(
                f"stateless_apply: {len(trainable_variables)} variables, the optimizer is built on "
                f"{len(self._trainable_variables)}. If layers were frozen or unfrozen, attach a callback of "
                "capibara_keras in `fit`, or call `optimizer.build(model.trainable_variables)` before"
            )
        result: tuple[list[Tensor], list[Tensor]] = super().stateless_apply(
            optimizer_variables, grads, trainable_variables
        )
        return result

"""The variables that an optimizer owns: made in `build`, brought in line with the configuration, restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from capibara_keras import backend, checkpoint, config, errors
from capibara_keras.arguments import checked_variables
from capibara_keras.config import OptimizerConfig
from capibara_keras.pipeline import State
from capibara_keras.planning import group_numbers
from capibara_keras.rate import rate_of
from capibara_keras.state import StateVariables, VariableState
from capibara_keras.types import Variable
from capibara_keras.variables import path_of, scalar_dtype
from capibara_keras.warning import warn

__all__ = ["Stateful"]


class Stateful(keras.optimizers.Optimizer):
    """An optimizer that owns the state of one `OptimizerConfig`, as variables."""

    _learning_rate: Any

    def __init__(self, configuration: OptimizerConfig, name: str | None = None) -> None:
        self._set(_options={}, _cache={}, _plans={}, _revision=0, _traced=False, _stale=False, _attached=False)
        self._set(_states=StateVariables(self), _rate_multiplier=None, _pending=None, _excluded=set())
        self._set(_total_steps=None, _model=lambda: None, _wrapped=False, _weight=None, _raised=0, _fit_may_end=False)
        self._set(_warned=frozenset(), _early_loss=None, _waiting={})
        super().__init__(learning_rate=rate_of(configuration), name=name)
        self._adopt(configuration)

    def _set(self, **attributes: Any) -> None:
        """Set attributes that neither Keras nor TensorFlow should track."""
        for name, value in attributes.items():
            object.__setattr__(self, name, value)

    @property
    def configuration(self) -> OptimizerConfig:
        """All options, checked. To change them, assign them one by one or call `reconfigure`."""
        return self._config

    @property
    def iterations(self) -> Variable:
        """Updates so far: changes of the weights, neither micro-batches nor skipped updates."""
        return self._iterations

    @property
    def variables(self) -> list[Variable]:
        """All state: what checkpoints hold, then what the constructor sets anew."""
        return self._variables[:] + self._states.unsaved

    @property
    def _state(self) -> State:
        """The state as variables."""
        return self._states.state

    @property
    def _rows(self) -> list[VariableState]:
        """The state of each variable that the optimizer is built on."""
        return [self._states.rows[self._var_key(v)] for v in self._trainable_variables]

    @property
    def pending_micro_batches(self) -> int:
        """Micro-batches in the window that no update has used yet."""
        return int(ops.convert_to_numpy(self._state.window[0])) if self.built and self._state.window else 0

    def build(self, variables: Sequence[Variable]) -> None:
        """Create the state for a list of variables, and restore what was loaded before.

        Building again with the same variables does nothing; with others (layers unfrozen, or frozen again) the
        state of the known ones is kept, and new ones start afresh, their bias correction at their own first update.

        Raises:
            ConfigError: what is given cannot be trained.
            CheckpointError: what was loaded belongs to other variables or to another algorithm; each time.
        """
        variables = checked_variables("build", variables)
        with backend.outside_trace():
            self._complete(variables)
        if not (self.built and [self._var_key(v) for v in variables] == list(self._trainable_variables_indices)):
            self._build(variables)
        if self._pending is not None:
            with backend.outside_trace():
                self._restore(*self._pending)

    def _complete(self, variables: list[Variable]) -> None:
        """Choose what depends on the variables, before there is any state for them."""

    def _build(self, variables: list[Variable]) -> None:
        if self.shard_state and keras.backend.backend() != "jax":
            raise errors.ConfigError(f"shard_state=True needs the JAX backend, this is {keras.backend.backend()!r}")
        extended = self.built
        self._trainable_variables_indices.clear()
        with self._hidden("use_ema", "gradient_accumulation_steps"):  # Keras would make its own state for them
            super().build(variables)
        self._assemble()
        if extended:
            self._retrace()

    @contextlib.contextmanager
    def _hidden(self, *names: str) -> Iterator[None]:
        values = {name: getattr(self, name) for name in names}
        self._set(**dict.fromkeys(names))
        yield
        self._set(**values)

    def _assemble(self) -> None:
        """Bring the state variables in line with configuration and model."""
        variables = self._trainable_variables
        self._set(_waiting={})
        with backend.scope(self):
            rate = self._learning_rate if isinstance(self._learning_rate, keras.Variable) else self._multiplier()
        numbers = group_numbers(self._config, [path_of(v) for v in variables])
        with backend.scope(self):
            state = self._states.assemble(self._config, variables, numbers, rate)
        if self.use_ema:
            self._set(_model_variables_moving_average=[row[0] if row else None for row in state.averages])

    def _adopt(self, configuration: OptimizerConfig) -> None:
        """Take a configuration, and show its options as attributes."""
        options = configuration.to_options()
        hidden = (
            "algorithm",
            "learning_rate",
            *(configuration.schedule.to_options() if configuration.schedule else ()),
        )
        shown = {name: value for name, value in options.items() if name not in hidden}
        shown = dict.fromkeys(config.CLIPPING) | shown  # those that are not set too: they can be assigned
        self._set(_config=configuration, _options=shown, **shown)

    def _multiplier(self) -> Variable:
        if self._rate_multiplier is None:
            self._set(_rate_multiplier=self.add_variable((), "ones", scalar_dtype(), name="learning_rate_multiplier"))
        return self._rate_multiplier

    def _retrace(self) -> None:
        """Forget compiled steps, and the train function of the model, if it is known; other functions that have
        compiled a step in must forget it themselves."""
        self._set(_cache={}, _plans={}, _revision=self._revision + 1, _stale=self._stale or self._traced, _traced=False)
        model = self._model()
        if self._stale and getattr(model, "train_function", None) is not None:
            model.make_train_function(force=True)
            self._set(_stale=False)
        if self._stale and not self._attached:
            warn(
                f"{self.name}: a compiled train step still holds the options it was traced with. In `fit`, attach a "
                "callback of capibara_keras, or call model.make_train_function(force=True); trace other functions anew"
            )

    def _restore(self, description: checkpoint.Description, arrays: Mapping[checkpoint.Key, np.ndarray]) -> None:
        inventory = self._inventory()
        joined = checkpoint.restore(inventory, self._config, description, arrays)
        waiting = {key for key in arrays if key[0].startswith(checkpoint.OWN)} - set(inventory)
        self._set(_pending=None, _waiting={key: arrays[key] for key in waiting})
        if self._states.join(joined):
            self._retrace()

    def _inventory(self) -> dict[checkpoint.Key, Variable]:
        """State variables by (name, path of the variable they belong to)."""
        inventory = {("iteration", ""): self._iterations}
        if isinstance(self._learning_rate, keras.Variable):
            inventory["learning_rate", ""] = self._learning_rate
        elif self._rate_multiplier is not None:
            inventory["learning_rate_multiplier", ""] = self._rate_multiplier
        inventory |= self._states.inventory()
        known = {id(v) for v in inventory.values()}
        own = [v for v in self._variables if id(v) not in known]
        return inventory | {(f"{checkpoint.OWN}{i}", ""): v for i, v in enumerate(own)}

    def _track_variable(self, variable: Variable) -> None:
        """Subclasses make variables of their own after `build`, when the file has been read already."""
        super()._track_variable(variable)
        if self.__dict__.get("_waiting"):
            key = next((key for key, v in self._inventory().items() if v is variable), None)
            array = self._waiting.pop(key, None)
            if array is not None and array.shape == tuple(variable.shape):
                variable.assign(array)

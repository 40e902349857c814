"""Options that are attributes, and change between updates."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from capibara_keras import backend, config, errors
from capibara_keras.config import OptimizerConfig
from capibara_keras.core.rated import Rated
from capibara_keras.core.structure import structure
from capibara_keras.planning import group_numbers
from capibara_keras.rate import rate_of
from capibara_keras.schedules import OPTION_NAMES, ConstantWithWarmup, SchedulePlan
from capibara_keras.types import Variable
from capibara_keras.variables import path_of, slots_of

__all__ = ["Configurable"]


class Configurable(Rated):
    """The options of the configuration as attributes."""

    def __setattr__(self, name: str, value: Any) -> None:
        if config.ALIASES.get(name, name) == "learning_rate":
            return self._assign_rate(value)  # not through Keras, which first reads the rate: it may not be known yet
        if name == "loss_scale_factor" and self.__dict__.get("_options"):
            self._set(_wrapped=True)  # by a Keras wrapper, which scales the loss itself and never asks this one
        shown = self.__dict__.get("_options", {})
        hidden = shown and (name in OPTION_NAMES or name in config.ALIASES)  # else they would be set, and do nothing
        if (name in shown and name != "loss_scale_factor") or hidden:
            self.reconfigure({name: value})
        else:
            if name == "loss_scale_factor" and "_config" in self.__dict__:  # Keras' wrappers assign it
                self._set(_config=dataclasses.replace(self._config, loss_scale_factor=value))
            if shown and not name.startswith("_") and not hasattr(self, name):
                self._refuse_misspelt(name)
            super().__setattr__(name, value)
        return None

    def _refuse_misspelt(self, name: str) -> None:
        """An attribute that is nearly an option would be set, and do nothing. Subclasses may have what they like."""
        names = [*self._options, *OPTION_NAMES, *config.ALIASES, "learning_rate"]
        if type(self).__module__.startswith("capibara_keras.") and errors.nearest(name, names, cutoff=0.75):
            raise errors.unknown("option", name, names)

    def reconfigure(self, options: Mapping[str, Any]) -> None:
        """Change options; all or none of them.

        Args:
            options: names and values as in the constructor.

        Raises:
            ConfigError: a bad option, or one that would change the state that a built optimizer keeps.

        >>> import capibara_keras as ck
        >>> optimizer = ck.Adam()
        >>> optimizer.reconfigure({"beta_2": 0.95, "global_clipnorm": 1.0})
        >>> optimizer.beta_2
        0.95
        """
        given = config.canonical(options)
        current = self._config.to_options()
        if self._config.schedule is None:
            current.pop("use_scheduler")  # as in the constructor: a schedule that is given is used
        if any(given.get(name) is not None for name in (*config.CLIPS, *config.CLIPPING)):
            kept = config.CLIPPING if any(name in given for name in config.CLIPPING) else ()
            current |= {name: None for name in (*config.CLIPS, *config.CLIPPING) if name not in kept}
        self._change(config.parse(current | given))

    def _change(self, new: OptimizerConfig) -> None:
        """Take a new configuration: numbers into variables, the rest by forgetting what was compiled."""
        old = self._config
        if backend.tracing(()):
            raise errors.ConfigError("options cannot change inside a function that is being traced")
        if self.built:
            self._refuse_change_of_state(old, new)
        if self.pending_micro_batches and not new.accumulates:
            new = dataclasses.replace(new, accumulator=True)  # the window is closed by the next micro-batch
        rate_of(new, self._total_steps)  # raises if its options contradict each other: now, while nothing has changed
        self._adopt(new)
        if self.built and structure(new) == structure(old):
            self._states.set_numbers(new)
        elif self.built:
            self._assemble()
        before, now = ((c.schedule, c.learning_rate) if c.use_scheduler and c.schedule else None for c in (old, new))
        if now is None and before is not None:
            rate = new.learning_rate
            self.learning_rate = rate if callable(rate) else ConstantWithWarmup(rate)
        elif now != before:
            self._resolve_schedule()
        else:
            if now is None and new.learning_rate != old.learning_rate:
                self.learning_rate = new.learning_rate
            if structure(new) != structure(old):
                self._retrace()

    def _schedule(self, plan: SchedulePlan) -> None:
        """Take a schedule, complete or to be completed; a rate assigned on top of the last one is forgotten."""
        if self._rate_multiplier is not None:
            self._rate_multiplier.assign(1.0)
        self._change(dataclasses.replace(self._config, schedule=plan, use_scheduler=True))

    def _refuse_change_of_state(self, old: OptimizerConfig, new: OptimizerConfig) -> None:
        paths, variables = [row.path for row in self._rows], self._trainable_variables

        def kept(settings: OptimizerConfig) -> dict[str, Any]:
            rules = [settings.parts[number].rule for number in group_numbers(settings, paths)]
            slots = [(rule.family, slots_of(rule, v)) for rule, v in zip(rules, variables, strict=True)]
            names = [" ".join([family, *(slot.name for slot in own)]) for family, own in slots]
            return {
                "algorithm and state": list(dict.fromkeys(names)),
                **{f"state of {path}": own for path, own in zip(paths, slots, strict=True)},
                "use_ema": settings.use_ema,
                "shard_state": settings.shard_state,
            }

        before, after = kept(old), kept(new)
        for what in before:
            if before[what] != after[what]:
                raise errors.ConfigError(
                    f"{what} cannot change from {before[what]!r} to {after[what]!r}: the optimizer is built, and its "
                    "state would no longer fit. Make a new optimizer, or set this before the first update"
                )

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leave variables out of weight decay. Calls add up; refused once the optimizer is built.

        Args:
            var_list: variables.
            var_names: regular expressions, searched in `variable.path`.

        Raises:
            ConfigError: after `build`.

        >>> import capibara_keras as ck
        >>> optimizer = ck.AdamW(weight_decay=0.1)
        >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
        >>> optimizer.exclude_from_weight_decay(var_names=["norm"])
        >>> optimizer.weight_decay_exclude
        ['bias', 'norm']
        """
        if self.built:
            raise errors.ConfigError(
                "exclude_from_weight_decay: the optimizer is built already; exclude variables before the first update"
            )
        variables = list(var_list or ())
        self._excluded.update(self._var_key(v) for v in variables)
        exact = [_exactly(path_of(v)) for v in variables]
        names = config.patterns([*self._config.weight_decay_exclude, *(var_names or ()), *exact])
        self._adopt(dataclasses.replace(self._config, weight_decay_exclude=names))

    def _use_weight_decay(self, variable: Variable) -> bool:
        path = path_of(variable)
        excluded = self._config.weight_decay_exclude
        named = any(re.search(pattern, path) for pattern in excluded)
        named = named or (config.VECTORS in excluded and len(variable.shape) <= 1)
        return not named and self._var_key(variable) not in self._excluded


def _exactly(path: str) -> str:
    """A pattern for one path. A loaded `Sequential` drops its own name, so the first of three parts is optional."""
    first, _, rest = path.partition("/")
    return f"^({re.escape(first)}/)?{re.escape(rest)}$" if "/" in rest else f"^{re.escape(path)}$"

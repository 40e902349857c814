"""Search spaces in the words of keras-tuner, whose `HyperParameters` hold only numbers, strings and booleans."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from capibara_keras.tuning.domains import Choice, Dimension, Range, Values
from capibara_keras.tuning.search_space import SearchSpace

__all__ = ["decoded", "hyperparameters", "sample"]


def sample(hp: Any, search_space: Mapping[str, Any] | SearchSpace) -> Values:
    """The options of a trial of one of keras-tuner's own tuners, for a hypermodel that exists already.

    Args:
        hp: the `keras_tuner.HyperParameters` that `build(hp)` receives.
        search_space: as `OptimizerAutoTuner` takes it.

    Returns:
        A dictionary for `Optimizer.from_config`.

    >>> import capibara_keras as ck, keras_tuner
    >>> space = {"learning_rate": [1e-4, 1e-2, "log"], "beta1": [0.8, 0.95, "uniform"]}
    >>> hp = keras_tuner.HyperParameters()
    >>> ck.Optimizer.from_config(sample(hp, space)).beta_1
    0.8
    >>> [d.name for d in hp.space]
    ['learning_rate', 'beta1']
    """
    space = search_space if isinstance(search_space, SearchSpace) else SearchSpace.parse(search_space)
    result: Values = {}
    for d in space.dimensions:
        given = _ask(hp, space, d)  # also where it does not apply: keras-tuner learns of scopes by seeing them
        if d.active(result):
            result[d.name] = _decoded(d, given)
    return result


def hyperparameters(space: SearchSpace, values: Mapping[str, Any] | None = None) -> Any:
    """A `keras_tuner.HyperParameters` with every option of a space, and these values."""
    import keras_tuner

    hp = keras_tuner.HyperParameters()
    for d in space.dimensions:
        _ask(hp, space, d)
    hp.values = {d.name: _encoded(d, values[d.name]) for d in space.dimensions if values and d.name in values}
    return hp


def decoded(space: SearchSpace, values: Mapping[str, Any]) -> Values:
    """The values that `hyperparameters` was given, from keras-tuner's.

    >>> space = SearchSpace.parse({"gradient_clip_norm": [None, 1.0, "choice"]})
    >>> decoded(space, hyperparameters(space, {"gradient_clip_norm": None}).values)
    {'gradient_clip_norm': None}
    """
    return {d.name: _decoded(d, values[d.name]) for d in space.dimensions if d.name in values}


def _ask(hp: Any, space: SearchSpace, d: Dimension) -> Any:
    """One `hp.Float`, `hp.Int`, `hp.Choice` or `hp.Fixed`, inside the scopes of its conditions."""
    if d.when:
        parent, allowed = next(iter(d.when.items()))
        rest = {name: values for name, values in d.when.items() if name != parent}
        with hp.conditional_scope(parent, [_encoded(space.dimension(parent), value) for value in allowed]):
            return _ask(hp, space, dataclasses.replace(d, when=rest))
    if isinstance(d.domain, Range):
        ask = hp.Int if d.domain.whole else hp.Float
        return ask(d.name, d.domain.low, d.domain.high, sampling="log" if d.domain.log else "linear")
    if not _plain(d.domain):
        return hp.Choice(d.name, list(range(len(d.domain.values))))
    if d.fixed:
        return hp.Fixed(d.name, d.domain.values[0])
    return hp.Boolean(d.name) if set(map(type, d.domain.values)) == {bool} else hp.Choice(d.name, d.domain.values)


def _plain(domain: Choice) -> bool:
    """Whether keras-tuner can hold the values: all of one type, and none `None`. Else it gets their numbers."""
    kinds = {type(value) for value in domain.values}
    return len(kinds) == 1 and kinds <= {bool, int, float, str}


def _encoded(d: Dimension, value: Any) -> Any:
    return value if isinstance(d.domain, Range) or _plain(d.domain) else d.domain.values.index(value)


def _decoded(d: Dimension, value: Any) -> Any:
    return value if isinstance(d.domain, Range) or _plain(d.domain) else d.domain.values[value]

"""The search algorithms: pure functions of what is known, so that a resumed search proposes what it would have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from capibara_keras.errors import ConfigError
from capibara_keras.tuning import gaussian_process
from capibara_keras.tuning.domains import Choice, Dimension, Range, Values
from capibara_keras.tuning.hypermodel import decoded, hyperparameters
from capibara_keras.tuning.search_space import SearchSpace
from capibara_keras.tuning.trials import Search

__all__ = ["ALGORITHMS", "propose", "smallest_grid"]

Proposer: TypeAlias = Callable[[Search, int], Values | None]

ATTEMPTS = 200
"""To find a configuration that was not tried yet."""


def propose(algorithm: str, search: Search, number: int) -> Values | None:
    """The configuration of a trial, different from all before; `None` if there is none left."""
    values = ALGORITHMS[algorithm](search, number)
    tried = search.tried
    for attempt in range(ATTEMPTS):
        if values is None or values not in tried:
            return values
        rng = np.random.default_rng([search.seed, number, attempt])
        width = 0.05 * 1.05**attempt
        units = search.space.units(values)
        values = search.space.values(np.clip(units + width * rng.normal(size=len(units)), 0, 1))
    return grid(search, number)


def random(search: Search, number: int) -> Values:
    """Uniform in the unit cube."""
    return search.space.values(np.random.default_rng([search.seed, number]).random(len(search.space.dimensions)))


def grid(search: Search, number: int) -> Values | None:
    """All combinations in turn, with as many values per range as the number of trials allows, at least two."""
    space = search.space
    most = next(
        n
        for n in range(2, 1_000_000)
        if _combinations(space.searched, n + 1) > search.max_trials
        or _combinations(space.searched, n + 1) == _combinations(space.searched, n + 2)
    )
    grids = [d.domain.grid(most) for d in space.dimensions]
    tried = search.tried
    for index in range(math.prod(map(len, grids))):
        units, rest = [], index
        for d, values in zip(space.dimensions[::-1], grids[::-1], strict=True):
            rest, place = divmod(rest, len(values))
            units.append(d.domain.position(values[place]))
        candidate = space.values(units[::-1])
        if candidate not in tried:
            return candidate
    return None


def smallest_grid(space: SearchSpace) -> int:
    """Points of a grid with two values per range."""
    return _combinations(space.searched, 2)


def _combinations(dimensions: tuple[Dimension, ...], most: int) -> int:
    return math.prod(len(d.domain.grid(most)) for d in dimensions)


def keras_tuner_bayesian(search: Search, number: int) -> Values | None:
    """keras-tuner's own Gaussian process. Trials that diverged get the worst finite score: it would take them for 0."""
    import keras_tuner

    seed = int(np.random.default_rng([search.seed, number]).integers(1, 2**31))
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("loss", "min"),
        max_trials=search.max_trials,
        hyperparameters=hyperparameters(search.space),
        seed=seed,
    )
    losses = [search.loss(t) for t in search.trials]
    worst = max((x for x in losses if math.isfinite(x)), default=0.0)
    for trial, loss in zip(search.trials, losses, strict=True):
        known = keras_tuner.engine.trial.Trial(
            hyperparameters(search.space, trial.options), trial_id=str(trial.number), status="COMPLETED"
        )
        known.score = loss if math.isfinite(loss) else worst
        oracle.trials[known.trial_id] = known
        oracle._record_values(known)
    answer = oracle.populate_space(str(number))
    return decoded(search.space, answer["values"]) if answer["values"] else None


def optuna(search: Search, number: int) -> Values:
    """Optuna's tree-structured Parzen estimator, if Optuna is installed."""
    try:
        import optuna as package
    except ImportError as error:
        raise ConfigError('search_algorithm="optuna" needs the package optuna: pip install optuna') from error
    package.logging.set_verbosity(package.logging.WARNING)
    seed = int(np.random.default_rng([search.seed, number]).integers(1, 2**31))
    study = package.create_study(sampler=package.samplers.TPESampler(seed=seed))
    distributions = {d.name: _distribution(package, d) for d in search.space.dimensions}
    losses = [search.loss(t) for t in search.trials]
    worst = max((x for x in losses if math.isfinite(x)), default=0.0)
    for trial, loss in zip(search.trials, losses, strict=True):
        given = {d.name: _number(d, trial.options[d.name]) for d in search.space.dimensions if d.name in trial.options}
        frozen = package.trial.create_trial(
            params=given,
            distributions={name: distributions[name] for name in given},
            value=loss if math.isfinite(loss) else worst,
        )
        study.add_trial(frozen)
    asked = study.ask()
    values: Values = {}
    for d in search.space.dimensions:
        if d.active(values):
            values[d.name] = _suggested(asked, d)
    return values


def _distribution(package: Any, d: Dimension) -> Any:
    """Optuna's domain of an option; choices by their numbers."""
    if isinstance(d.domain, Choice):
        return package.distributions.CategoricalDistribution(list(range(len(d.domain.values))))
    kinds = package.distributions
    kind = kinds.IntDistribution if d.domain.whole else kinds.FloatDistribution
    return kind(d.domain.low, d.domain.high, log=d.domain.log)


def _number(d: Dimension, value: Any) -> Any:
    return value if isinstance(d.domain, Range) else d.domain.values.index(value)


def _suggested(asked: Any, d: Dimension) -> Any:
    if isinstance(d.domain, Choice):
        return d.domain.values[asked.suggest_categorical(d.name, list(range(len(d.domain.values))))]
    suggest = asked.suggest_int if d.domain.whole else asked.suggest_float
    return suggest(d.name, d.domain.low, d.domain.high, log=d.domain.log)


ALGORITHMS: Mapping[str, Proposer] = {
    "bayesian_optimization": gaussian_process.propose,
    "random": random,
    "grid": grid,
    "hyperband": random,
    "keras_tuner_bayesian": keras_tuner_bayesian,
    "optuna": optuna,
}
"""By name. "hyperband" is random search with its own early termination."""

"""What monitoring sees of a training: facts that stay, and one observation per update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from capibara_keras import errors

__all__ = ["Observation", "Probe", "Subject"]

_NOTHING = np.zeros(0)


@dataclass(frozen=True)
class Subject:
    """What is known of a training before its first update.

    Args:
        paths: of the trainable variables, in the order of the model, from its input to its output. The layer is the
            path without its last part.
        shapes: of the variables.
        baseline_loss: of a model that knows nothing but how often each answer occurs: ln C for C equally frequent
            classes, the variance of the targets for a squared error; `nan` if it is not known.
        adaptive: whether the algorithm divides by a running mean of the gradient's size, as Adam does.
        epsilon: of such an algorithm.
        loss_scaled: whether a wrapper scales the loss, and skips updates that overflow, as `LossScaleOptimizer` does.
        fixed_clip: whether the limit of clipping is one number of the user's, for norms.
        attention: whether the model has attention layers. Default: whether a path says so.

    >>> subject = Subject(paths=("dense/kernel", "dense/bias"), shapes=((4, 3), (3,)))
    >>> subject.layers, subject.sizes.tolist()
    (('dense',), [15.0])
    """

    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    baseline_loss: float = math.nan
    adaptive: bool = False
    epsilon: float = math.nan
    loss_scaled: bool = False
    fixed_clip: bool = True
    attention: bool | None = None

    layers: tuple[str, ...] = field(init=False)
    """Names, from the model's input to its output."""
    layer_of: np.ndarray = field(init=False, repr=False, compare=False)
    """Index of each variable's layer."""
    sizes: np.ndarray = field(init=False, repr=False, compare=False)
    """Entries of each layer."""
    matrices: np.ndarray = field(init=False, repr=False, compare=False)
    """Whether a layer has a variable with two axes or more: the others (norms, scales) are no layers of their own."""

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.shapes):
            raise errors.ConfigError(f"Subject: {len(self.paths)} paths for {len(self.shapes)} shapes")
        names = [path.rsplit("/", 1)[0] if "/" in path else path for path in self.paths]
        layers = tuple(dict.fromkeys(names))
        layer_of = np.array([layers.index(name) for name in names], np.int64)
        sizes = np.bincount(layer_of, [math.prod(shape) for shape in self.shapes], len(layers))
        matrices = np.bincount(layer_of, [len(shape) >= 2 for shape in self.shapes], len(layers)) > 0
        attention = any("attention" in path for path in self.paths) if self.attention is None else self.attention
        values = {"layers": layers, "layer_of": layer_of, "sizes": sizes, "matrices": matrices, "attention": attention}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def by_layer(self, norms: np.ndarray) -> np.ndarray:
        """Norms of layers from norms of variables; those that are `nan` do not count, a layer of none is `nan`."""
        known = ~np.isnan(norms)
        squares = np.bincount(self.layer_of[known], norms[known] ** 2, len(self.layers))
        counted = np.bincount(self.layer_of[known], minlength=len(self.layers))
        return np.where(counted > 0, np.sqrt(squares), np.nan)

    def names(self, which: Sequence[int] | np.ndarray) -> tuple[str, ...]:
        """Names of layers by index."""
        return tuple(self.layers[int(i)] for i in which)


@dataclass(frozen=True, eq=False)
class Probe:
    """What is looked at every few updates only, because it costs more than a norm. By variable, `nan` where it does
    not apply.

    Args:
        silent_updates: for each unit (entry of a bias whose layer has a matrix), for how many updates the gradient of
            its bias has been exactly 0, as it is where none reaches the unit; all layers in one vector.
        unit_layers: the layer's index of each unit; the same vector each time.
        zero_fraction: share of entries of the gradient that are exactly 0.
        equal_columns: share of a matrix' columns that equal its first one, to 1e-5 of its size.
        below_epsilon: share of entries whose root of the second moment is below epsilon, of those where it is not 0.
        half_precision: share of the small (below 2^-14) nonzero entries that are multiples of 2^-24, as float16's are.
        small_entries: how many such small entries there are.
        gradient_dot: product of this gradient with the one before, or with a mean of those before; `nan` if unknown.
        gradient_square: product of this gradient with itself, as it was for `gradient_dot`.

    >>> Probe(zero_fraction=np.array([0.5])).gradient_dot
    nan
    """

    silent_updates: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    unit_layers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    zero_fraction: np.ndarray = field(default_factory=lambda: _NOTHING)
    equal_columns: np.ndarray = field(default_factory=lambda: _NOTHING)
    below_epsilon: np.ndarray = field(default_factory=lambda: _NOTHING)
    half_precision: np.ndarray = field(default_factory=lambda: _NOTHING)
    small_entries: np.ndarray = field(default_factory=lambda: _NOTHING)
    gradient_dot: float = math.nan
    gradient_square: float = math.nan


@dataclass(frozen=True, eq=False)
class Observation:
    """One update, skipped ones included. What was not measured is `nan`; what is not finite is `inf`.

    Args:
        update: index of the update, from 0; a skipped one has the index of the next that is not.
        loss: of the batch, or the mean over micro-batches.
        learning_rate: that was used.
        gradient_norm, parameter_norm, update_norm, clip_threshold, clipped, skipped: as in `StepRecord`.
        gradient_norms, parameter_norms, update_norms: by variable. A gradient that does not exist is `nan`.
        decay_norm: norm of what weight decay took off.
        micro_batches: how many made up the update.
        micro_square: mean over micro-batches (or replicas) of the squared norm of their gradients.
        probe: `None` where nothing was probed.

    >>> Observation(0, loss=2.3).gradient_norm
    nan
    """

    NUMBERS: ClassVar[tuple[str, ...]] = ("loss", "learning_rate", "gradient_norm", "parameter_norm", "update_norm")

    update: int
    loss: float = math.nan
    learning_rate: float = math.nan
    gradient_norm: float = math.nan
    parameter_norm: float = math.nan
    update_norm: float = math.nan
    clip_threshold: float = math.nan
    clipped: bool = False
    skipped: bool = False
    gradient_norms: np.ndarray = field(default_factory=lambda: _NOTHING)
    parameter_norms: np.ndarray = field(default_factory=lambda: _NOTHING)
    update_norms: np.ndarray = field(default_factory=lambda: _NOTHING)
    decay_norm: float = math.nan
    micro_batches: int = 1
    micro_square: float = math.nan
    probe: Probe | None = None

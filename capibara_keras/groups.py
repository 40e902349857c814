"""Rate, decay, clipping and algorithm per variable: groups by path, layer-wise decay, differential rates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capibara_keras import errors
from capibara_keras.clip import ClipPolicy
from capibara_keras.depths import depths
from capibara_keras.rules import UpdateRule
from capibara_keras.warning import warn

__all__ = ["Group", "check_pattern", "group_of", "matches", "multipliers", "warn_unmatched"]


@dataclass(frozen=True)
class Group:
    """What is different for the variables whose path matches.

    Args:
        pattern: see `matches`.
        rate: multiplier of the learning rate, ≥ 0.
        weight_decay: their own decay; `None` for the optimizer's.
        rule: their own algorithm; `None` for the optimizer's.
        clip: their own clipping; `None` for the optimizer's.

    >>> Group("head", rate=10.0).rate
    10.0
    """

    pattern: str
    rate: float = 1.0
    weight_decay: float | None = None
    rule: UpdateRule | None = None
    clip: ClipPolicy | None = None

    def __post_init__(self) -> None:
        check_pattern(self.pattern)
        errors.number("rate", self.rate, 0)
        if self.weight_decay is not None:
            errors.number("weight_decay", self.weight_decay, 0)


def check_pattern(pattern: Any, name: str = "pattern") -> str:
    """`pattern`, if it is a string, and a regular expression where it begins with `re:`; `name` is for the error."""
    if not isinstance(pattern, str) or not pattern:
        raise errors.ConfigError(
            f"{name}: expected a part of a variable's path, or 're:' and an expression, received {pattern!r}"
        )
    if pattern.startswith("re:"):
        try:
            re.compile(pattern[3:])
        except re.error as error:
            raise errors.ConfigError(f"{name}: {pattern!r} is not a regular expression: {error}") from error
    return pattern


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches a variable's path.

    A plain word matches a whole segment, with or without a number behind it; several words joined by "/" match
    segments in a row; `re:` begins a regular expression that may match anywhere.

    >>> matches("head", "model/head_1/kernel"), matches("head", "multi_head_attention/kernel")
    (True, False)
    """
    if pattern.startswith("re:"):
        return re.search(pattern[3:], path) is not None
    words, segments = pattern.strip("/").split("/"), path.split("/")
    return any(
        all(re.fullmatch(re.escape(word) + r"(_\d+)?", s) for word, s in zip(words, segments[i:], strict=False))
        for i in range(len(segments) - len(words) + 1)
    )


def group_of(groups: Sequence[Group], path: str) -> int:
    """Number of the first group that matches, from 1; 0 for none."""
    return next((i for i, group in enumerate(groups, 1) if matches(group.pattern, path)), 0)


def multipliers(
    paths: Sequence[str],
    ranks: Sequence[int],
    *,
    groups: Sequence[Group] = (),
    differential: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    layer_depths: Mapping[str, int] | None = None,
    layers: Sequence[Any] | None = None,
) -> list[float]:
    """The factor of the learning rate for each variable: group x differential rate x layer-wise decay.

    Args:
        paths, ranks: of the variables, in the order of the model.
        differential: pattern -> factor; the first that matches wins, 1 if none does.
        layer_decay: d in d^(deepest - depth) (Clark et al. 2020, "ELECTRA", Appendix A).
        layer_depths: pattern -> depth, instead of `depths`; variables that match nothing are the head.
        layers: see `depths`.

    >>> multipliers(["embed/embeddings", "mid/kernel", "head/kernel"], [2, 2, 2], layer_decay=0.5)
    [0.25, 0.5, 1.0]
    """
    depth = depths(paths, ranks, layers) if layer_depths is None else _given_depths(paths, layer_depths)
    deepest = max(depth, default=0)
    result = []
    for path, level in zip(paths, depth, strict=True):
        index = group_of(groups, path)
        factor = groups[index - 1].rate if index else 1.0
        factor *= next((f for pattern, f in (differential or {}).items() if matches(pattern, path)), 1.0)
        result.append(factor * (1.0 if layer_decay is None else layer_decay ** (deepest - level)))
    return result


def warn_unmatched(patterns: Mapping[str, str], paths: Sequence[str]) -> None:
    """A warning that names the patterns that match no variable, and the variable each was probably meant for.

    Args:
        patterns: what is shown -> what is matched.
    """
    idle = {shown: p for shown, p in patterns.items() if not any(matches(p, path) for path in paths)}
    if idle:
        named = ", ".join(shown + _meant(pattern, paths) for shown, pattern in idle.items())
        shown = ", ".join(paths[:8]) + (", …" if len(paths) > 8 else "")
        warn(f"patterns that match no variable: {named}. Variables: {shown}")


def _meant(pattern: str, paths: Sequence[str]) -> str:
    word = re.sub(r"[^\w/]", "", pattern.removeprefix("re:"))
    parts = dict.fromkeys(part for path in paths for part in [*path.split("/"), path])
    guess = errors.nearest(word, parts)
    if guess is None:
        return ""
    where = next(path for path in paths if guess in [*path.split("/"), path])
    return f" (did you mean {guess!r}" + ("?)" if guess == where else f", as in {where}?)")


def _given_depths(paths: Sequence[str], layer_depths: Mapping[str, int]) -> list[int]:
    deepest = max(layer_depths.values(), default=-1) + 1
    found = [next((d for pattern, d in layer_depths.items() if matches(pattern, path)), None) for path in paths]
    return [deepest if depth is None else depth for depth in found]

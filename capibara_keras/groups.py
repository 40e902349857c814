"""Rate, decay, clipping and algorithm per variable: groups by path, layer-wise decay, differential rates."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from capibara_keras import errors
from capibara_keras.clip import ClipPolicy
from capibara_keras.rules import UpdateRule

__all__ = ["Group", "depths", "matches", "multipliers"]


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


def warn_unmatched(patterns: Iterable[str], paths: Sequence[str]) -> None:
    """A warning that names the patterns that match no variable."""
    idle = [pattern for pattern in dict.fromkeys(patterns) if not any(matches(pattern, path) for path in paths)]
    if idle:
        shown = ", ".join(paths[:8]) + (", …" if len(paths) > 8 else "")
        warnings.warn(
            f"patterns that match no variable: {', '.join(map(repr, idle))}. Variables: {shown}", stacklevel=6
        )


def depths(paths: Sequence[str], ranks: Sequence[int], layers: Sequence[Any] | None = None) -> list[int]:
    """How deep each variable lies: embeddings 0, the head deepest.

    Where the model has numbered blocks (`block`, `block_1`, …, each of several layers), a block is a level: what
    comes before them has depth 0, what comes after them is the head, except that norms right behind the last
    block belong to it. Elsewhere each layer with weights is a level, and a norm belongs to the layer before it.

    Args:
        layers: the layer of each variable; without them, what the path says.

    >>> depths(["embed/embeddings", "block/a/kernel", "block/b/kernel", "block_1/a/kernel", "block_1/b/kernel",
    ...         "norm/gamma", "head/kernel"], [2, 2, 2, 2, 2, 1, 2])
    [0, 1, 1, 2, 2, 2, 3]
    """
    segments = [path.split("/") for path in paths]
    root = _common_root(segments)
    layers = layers or ["/".join((parts[:-1] or parts)[: root + 1]) for parts in segments]
    blocks = _block_of_each(segments, root)
    levels: list[int] = []
    if any(block is not None for block in blocks):
        numbers = {block: i for i, block in enumerate(dict.fromkeys(b for b in blocks if b is not None), 1)}
        seen = False
        for i, block in enumerate(blocks):
            seen = seen or block is not None
            if block is not None:
                levels.append(numbers[block])
            elif not seen or _is_embedding(paths[i]):
                levels.append(0)
            else:
                levels.append(len(numbers) + (0 if _is_norm(i, layers, ranks) else 1))
        return levels
    level, previous = -1, None
    for i, layer in enumerate(layers):
        if layer != previous:
            level += 0 if level >= 0 and (_is_norm(i, layers, ranks) or _is_embedding(paths[i])) else 1
        previous = layer
        levels.append(0 if _is_embedding(paths[i]) else level)
    return levels


def _given_depths(paths: Sequence[str], layer_depths: Mapping[str, int]) -> list[int]:
    deepest = max(layer_depths.values(), default=-1) + 1
    found = [next((d for pattern, d in layer_depths.items() if matches(pattern, path)), None) for path in paths]
    return [deepest if depth is None else depth for depth in found]


def _common_root(segments: Sequence[Sequence[str]]) -> int:
    """How many leading segments all paths share (a model's own name)."""
    shortest = min((len(s) for s in segments), default=1)
    root = 0
    while root < shortest - 1 and len({s[root] for s in segments}) == 1:
        root += 1
    return root


def _block_of_each(segments: Sequence[Sequence[str]], root: int) -> list[str | None]:
    """The numbered block each path lies in, for the outermost level that has at least two of one name."""
    for level in range(root, max((len(s) for s in segments), default=0) - 2):
        children: dict[str, dict[str, set[str]]] = {}
        for s in segments:
            if len(s) > level + 2:
                stem = re.sub(r"_?\d+$", "", s[level]) or s[level - 1]
                children.setdefault(stem, {}).setdefault("/".join(s[: level + 1]), set()).add(s[level + 1])
        numbered = {stem: b for stem, b in children.items() if len(b) > 1 and all(len(c) > 1 for c in b.values())}
        if numbered:
            blocks = set(numbered[max(numbered, key=lambda stem: len(numbered[stem]))])
            joined = ["/".join(s[: level + 1]) for s in segments]
            return [name if name in blocks else None for name in joined]
    return [None] * len(segments)


def _is_embedding(path: str) -> bool:
    return re.search(r"embed|cls_token|class_token|mask_token", path) is not None


def _is_norm(i: int, layers: Sequence[Any], ranks: Sequence[int]) -> bool:
    """Whether all weights of the variable's layer are vectors."""
    return all(rank <= 1 for layer, rank in zip(layers, ranks, strict=True) if layer == layers[i])

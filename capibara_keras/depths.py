"""How deep in its model a variable lies, from paths and layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["depths"]


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

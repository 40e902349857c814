"""Names of layers that fit beside an axis, and tell layers apart."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["short", "short_names"]

LENGTH = 24


def short(name: str, length: int = LENGTH) -> str:
    """A name with its middle left out, if it is longer than that.

    >>> short("a_name_that_is_long", 9)
    'a_na…long'
    """
    half = (length - 1) // 2
    return name if len(name) <= length else f"{name[: length - 1 - half]}…{name[-half:]}"


def short_names(layers: Sequence[str]) -> list[str]:
    """Names without the parts of the path that all share at either end, or with an index where what is left out of the
    middle is what they differ in.

    >>> short_names(["model/block_0/dense", "model/block_1/dense"])
    ['block_0', 'block_1']
    """
    paths = [name.split("/") for name in layers]
    first, last = 0, 0
    if len(paths) > 1:
        shortest = min(map(len, paths))
        while first < shortest - 1 and len({path[first] for path in paths}) == 1:
            first += 1
        while last < shortest - 1 - first and len({path[-1 - last] for path in paths}) == 1:
            last += 1
    found = [short("/".join(path[first : len(path) - last])) for path in paths]
    return [name if found.count(name) == 1 else f"{k}: {short(name, LENGTH - 4)}" for k, name in enumerate(found)]

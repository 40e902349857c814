"""Which variables are compiled together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

__all__ = ["bundles"]


def bundles(signatures: Sequence[Hashable], most: int = 16) -> list[list[int]]:
    """Split variables into bundles, most of which are alike: the same code, compiled once, serves them.

    Models repeat their layers, so most signatures come up many times. In k bundles, a signature that comes up n times
    is compiled n // k times for all of them, and n % k times for the rest; the k that compiles least is taken.

    Args:
        signatures: what the compiled code for each variable depends on.
        most: alike bundles at most; each costs a launch in every update.

    Returns:
        Positions in `signatures`; alike bundles first, then the rest, if there is one.

    >>> bundles(["embedding", "kernel", "bias", "kernel", "bias"])
    [[1, 2], [3, 4], [0]]
    """
    places: dict[Hashable, list[int]] = {}
    for i, signature in enumerate(signatures):
        places.setdefault(signature, []).append(i)

    def compiled(k: int) -> int:
        return sum(len(mine) // k + len(mine) % k for mine in places.values())

    k = min(range(1, most + 1), key=compiled)
    alike = [[i for mine in places.values() for i in mine[j : len(mine) // k * k : k]] for j in range(k)]
    rest = [i for mine in places.values() for i in mine[len(mine) // k * k :]]
    return [part for part in [*alike, rest] if part]

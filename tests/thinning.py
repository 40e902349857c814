"""Cases that are much alike: some run always, the others only with the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(values: Iterable[Any], every: int) -> list[Any]:
    """The values as parameters of a test; all but every so many are slow."""
    return [pytest.param(value, marks=[pytest.mark.slow] * (i % every > 0)) for i, value in enumerate(values)]

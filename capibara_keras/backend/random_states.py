"""The random generators of torch, from which layers without a seed draw there; elsewhere they have variables."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

__all__ = ["put_random_states", "random_states"]


def random_states() -> dict[str, np.ndarray]:
    """The state of torch's generator "cpu", and of those of GPUs by their number; none on other backends."""
    if keras.backend.backend() != "torch":
        return {}
    import torch

    found = {"cpu": torch.get_rng_state()} | {str(i): x for i, x in enumerate(torch.cuda.get_rng_state_all())}
    return {name: state.numpy().copy() for name, state in found.items()}


def put_random_states(states: Mapping[str, np.ndarray]) -> None:
    """Set them; those of GPUs that are not here are left out."""
    if keras.backend.backend() != "torch":
        return
    import torch

    for name, state in states.items():
        tensor = torch.from_numpy(np.array(state))
        if name == "cpu":
            torch.set_rng_state(tensor)
        elif int(name) < torch.cuda.device_count():
            torch.cuda.set_rng_state(tensor, int(name))

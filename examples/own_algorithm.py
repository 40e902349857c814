"""An algorithm of one's own: one formula, and everything else of the package with it.

    python examples/own_algorithm.py

AdaBelief (Zhuang et al. 2020, Algorithm 2) divides by how far a gradient is from its running mean. Clipping, schedules,
accumulation, groups, skipping of bad updates, saving and monitoring come from the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

import capibara_keras as ck
from capibara_keras.rules import RULES, Rule


@dataclass(frozen=True)
class AdaBelief(Rule):
    """m_t = β₁ m + (1 - β₁) g;  s_t = β₂ s + (1 - β₂) (g - m_t)² + ε;  w ← w - rate m̂ / (sqrt(ŝ) + ε)."""

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-12

    family: ClassVar[str] = "adabelief"
    default_learning_rate: ClassVar[float] = 1e-3
    paper: ClassVar[str] = "Zhuang et al. 2020, Algorithm 2"
    use: ClassVar[str] = "An example."
    state: ClassVar[tuple[str, ...]] = ("m", "s")  # two of the variable's shape
    betas: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2")  # checked, and frozen when an update is skipped
    numbers: ClassVar[tuple[str, ...]] = ("epsilon",)  # can change without a new trace

    def prepare(self, s: Any, t: Any) -> Any:
        """Once per update: the bias corrections."""
        s = super().prepare(s, t)
        return s.replace(correction_1=1 / (1 - s.beta_1**t), correction_2=1 / (1 - s.beta_2**t))

    def update(self, g: Any, p: Any, slots: tuple[Any, ...], s: Any) -> tuple[Any, tuple[Any, ...]]:
        """For each variable: its change, and the new slots. `fresh` is 0 when an update is skipped, else 1."""
        m, belief = slots
        m = s.beta_1 * m + s.one_minus_beta_1 * g
        belief = s.beta_2 * belief + s.one_minus_beta_2 * ops.square(g - m) + s.fresh * s.epsilon
        step = s.rate * m * s.correction_1 / (ops.sqrt(belief * s.correction_2) + s.epsilon)
        return -step if s.decay is None else -step - s.decay * p, (m, belief)


def main() -> None:
    """Train with it."""
    RULES["adabelief"] = AdaBelief
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
    optimizer = ck.Optimizer("adabelief", learning_rate=2e-2, global_clipnorm=1.0, scheduler_type="linear_with_warmup")
    model.compile(optimizer, "mse")
    losses = model.fit(x, x.sum(1), epochs=10, verbose=0, callbacks=[ck.HealthMonitor()]).history["loss"]
    optimizer.apply([ops.full_like(v, float("nan")) for v in model.trainable_variables], model.trainable_variables)
    skipped = optimizer.counters()["skipped"]
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.3f}; {skipped} update skipped for a NaN, weights as before")


if __name__ == "__main__":
    main()

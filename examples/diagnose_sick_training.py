"""Break a small network in five ways, and see what the monitor says: which layer is sick, and what to change.

python examples/diagnose_sick_training.py
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

import capibara_keras as ck

CLASSES = 4


@dataclass
class Patient:
    """A training: what is unlike the healthy one."""

    optimizer: Any = field(default_factory=lambda: ck.Adam(3e-3))
    hidden: dict[str, Any] = field(default_factory=dict)
    all_layers: bool = False
    bad_batch: int | None = None
    frozen_by_mistake: bool = False


PATIENTS = {
    "healthy": lambda: Patient(),
    "a learning rate of 3": lambda: Patient(ck.Adam(3.0)),
    "a NaN in batch 60": lambda: Patient(bad_batch=60),
    "units that never fire": lambda: Patient(hidden={"bias_initializer": keras.initializers.Constant(-20.0)}),
    "all units start equal": lambda: Patient(
        hidden={"kernel_initializer": keras.initializers.Constant(0.05)}, all_layers=True
    ),
    "a gradient that is cut off": lambda: Patient(frozen_by_mistake=True),
}


def data(bad_batch: int | None, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Points around the corners of a cube, one class per two corners."""
    rng = np.random.default_rng(0)
    corners = rng.integers(2, size=(6400, 3))
    x = (corners + 0.3 * rng.normal(size=(6400, 3))).astype("float32")
    if bad_batch is not None:
        x[bad_batch * batch_size] = np.nan
    return x, corners[:, 0] * 2 + (corners[:, 1] ^ corners[:, 2])


def network(patient: Patient) -> keras.Model:
    """Two hidden layers."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(32, "relu", name="hidden_1", **patient.hidden)(inputs)
    if patient.frozen_by_mistake:
        x = keras.layers.Lambda(keras.ops.stop_gradient)(x)
    x = keras.layers.Dense(32, "relu", name="hidden_2", **(patient.hidden if patient.all_layers else {}))(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="output")(x))


def diagnose(patient: Patient) -> tuple[float, list[ck.monitoring.Alert]]:
    """Train for 200 updates; the last loss, and what was said."""
    keras.utils.set_random_seed(0)
    model = network(patient)
    model.compile(patient.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monitor = ck.HealthMonitor(print_fn=lambda text: None)
    x, y = data(patient.bad_batch)
    history = model.fit(x, y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor]).history
    return history["loss"][-1], [alert for alert in monitor.alerts if alert.level != "info"]


def main() -> dict[str, list[str]]:
    """Print a report on each patient; the ids of the alerts by patient."""
    found = {}
    for name, make in PATIENTS.items():
        loss, alerts = diagnose(make())
        print(f"\n{name}: mean loss {loss:.3f}")
        for alert in alerts:
            print(f"  {alert}")
        found[name] = [alert.id for alert in alerts]
    return found


if __name__ == "__main__":
    main()

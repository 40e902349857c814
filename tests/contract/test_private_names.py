"""The private names of Keras that the core relies on: this fails loudly when Keras drops one.

Each name is needed for what `DUTIES` says; `capibara_keras/core` lists them in its docstring.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import ops

from capibara_keras import allocation, core, state


def built() -> tuple[keras.optimizers.Optimizer, keras.Variable]:
    """A stock optimizer with averages, after a step."""
    w = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.5, use_ema=True)
    optimizer.apply([ops.ones(1)], [w])
    return optimizer, w


def untracks() -> bool:
    optimizer, _ = built()
    optimizer._untrack_variable(optimizer._learning_rate)
    return len(optimizer.variables) == 2  # the counter and the average


def tracks() -> bool:
    optimizer, _ = built()
    optimizer._track_variable(keras.Variable([2.0]))
    return len(optimizer.variables) == 4


def is_read_as_the_rate() -> bool:
    optimizer, _ = built()
    return float(optimizer._get_current_learning_rate()) == 0.5


DUTIES: dict[str, Callable[[Any, Any], bool]] = {
    "_iterations": lambda o, w: int(o._iterations) == 1,
    "_learning_rate": lambda o, w: float(o._learning_rate) == 0.5,
    "_variables": lambda o, w: len(o._variables) == len(o.variables) == 3,
    "_trainable_variables": lambda o, w: o._trainable_variables[0] is w,
    "_get_variable_index": lambda o, w: o._get_variable_index(w) == 0,
    "_var_key": lambda o, w: o._var_key(w) == o._var_key(w) != o._var_key(keras.Variable([1.0])),
    "_trainable_variables_indices": lambda o, w: o._trainable_variables_indices == {o._var_key(w): 0},
    "_use_weight_decay": lambda o, w: o._use_weight_decay(w),
    "_track_variable": lambda o, w: tracks(),
    "_untrack_variable": lambda o, w: untracks(),
    "_get_current_learning_rate": lambda o, w: is_read_as_the_rate(),
    "_model_variables_moving_average": lambda o, w: float(o._model_variables_moving_average[0][0]) == 0.5,
}


@pytest.mark.parametrize("name", DUTIES)
def test_keras_still_has_it_and_it_does_its_duty(name: str) -> None:
    optimizer, w = built()
    assert hasattr(optimizer, name), (
        f"Keras {keras.__version__} dropped the private name {name!r} of its optimizers, on which "
        "capibara_keras/core.py relies: find what replaces it"
    )
    assert DUTIES[name](optimizer, w), f"{name!r} does not do what it did before Keras {keras.__version__}"


def used() -> set[str]:
    """Attributes of the optimizer that the modules below use, and what they override or set."""
    names: set[str] = set()
    sources = [*Path(core.__file__).parent.glob("*.py"), Path(state.__file__), Path(allocation.__file__)]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "self.owner"):
                names.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Call):
                names |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return names


def test_the_docstring_names_them_all() -> None:
    """And no others: what is used of Keras' private names is what the docstring says, and is checked here."""
    listed = set(re.findall(r"`(_\w+)`", core.__doc__ or ""))
    optimizer, _ = built()
    of_keras = {name for name in dir(optimizer) if name.startswith("_") and not name.startswith("__")}
    assert used() & of_keras == listed == set(DUTIES)

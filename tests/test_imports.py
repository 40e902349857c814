"""What imports what, what stays unimported, and that everything public is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import capibara_keras
from tests.subprocess_runner import run

PACKAGE = Path(capibara_keras.__file__).parent

LAYERS = [
    {"types", "errors", "records", "warning"},
    {"files"},
    {"backend", "batchnorm", "depths", "history", "monitoring", "progress", "resuming", "snapshot", "units"},
    {"rules"},
    {"clip", "execution", "schedules", "variables"},
    {"allocation", "arguments", "catalog", "groups", "plan", "probes"},
    {"pipeline"},
    {"config"},
    {"checkpoint", "rate", "readings", "state"},
    {"planning", "describe", "memory", "recipes"},
    {"core", "inspection"},
    {"migration", "unwrap", "watch"},
    {"experiment"},
    {"landscape", "rate_test", "schedule_plot"},
    {"optimizer"},
    {"constructors", "callbacks"},
    {"tuning"},
]
"""Modules and subpackages from the bottom to the top: each imports only from layers below its own."""

BACKENDS = {"tensorflow", "jax", "torch"}


def modules() -> dict[str, Path]:
    """Files by their names below the package: "core", "rules.adam", and "rules" for its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    unit = module.split(".")[0]
    known = [i for i, names in enumerate(LAYERS) if unit in names]
    assert known, f"{unit} is in no layer: add it to LAYERS in {Path(__file__).name}"
    return known[0]


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_run_downward(module: str) -> None:
    for name in imported(MODULES[module]):
        if not name.startswith("capibara_keras."):
            continue
        other = name.removeprefix("capibara_keras.")
        same_unit = other.split(".")[0] == module.split(".")[0]
        assert same_unit or layer(other) < layer(module), f"{module} imports {other}, which is not below it"


def test_every_layer_is_there() -> None:
    """LAYERS names nothing that is gone."""
    assert {name.split(".")[0] for name in MODULES if name} == set().union(*LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_only_the_backend_module_knows_the_backends(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(MODULES[module])}
    assert not roots & BACKENDS or module.split(".")[0] == "backend"


def test_monitoring_is_numpy_alone() -> None:
    """It works on records, histories and arrays, in a process without Keras too."""
    for module, path in MODULES.items():
        if module.split(".")[0] == "monitoring":
            roots = {name.split(".")[0] for name in imported(path)}
            assert "keras" not in roots, module


def test_importing_stays_light() -> None:
    """Plots, the tuner and other backends are imported where they are used: nothing is added to what Keras needs."""
    code = "import json, sys, keras; before = set(sys.modules); import capibara_keras; print(json.dumps(new()))"
    new = "def new(): return sorted({name.split('.')[0] for name in set(sys.modules) - before})"
    assert run(f"{new}\n{code}") == ["capibara_keras"]


# Documentation -------------------------------------------------------------------------------------------------


def described(path: Path) -> set[str]:
    """Names that are assigned at the top level with a string behind them."""
    body = ast.parse(path.read_text()).body
    names = set()
    for statement, following in pairwise(body):
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


DESCRIBED = set().union(*map(described, MODULES.values()))
FACES = ("", "callbacks", "migration", "rules", "schedules", "monitoring", "recipes", "tuning")
USER_FACING = [name for name in FACES if name in MODULES]


def public(module: str) -> Iterator[tuple[str, object]]:
    loaded = importlib.import_module(f"capibara_keras.{module}" if module else "capibara_keras")
    for name in getattr(loaded, "__all__", []):
        yield name, getattr(loaded, name)


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module: str) -> None:
    """Modules, classes and functions; constants have a string behind their assignment."""
    assert ast.get_docstring(ast.parse(MODULES[module].read_text())), f"{module} has no docstring"
    without = []
    for name, value in public(module):
        documented = bool(value.__doc__) if inspect.isclass(value) or inspect.isroutine(value) else name in DESCRIBED
        if not documented and not inspect.ismodule(value):
            without.append(name)
    assert without == []


@pytest.mark.parametrize("module", USER_FACING)
def test_what_users_import_has_an_example(module: str) -> None:
    """One that doctest runs. Protocols have nothing to run."""
    without = [
        name
        for name, value in public(module)
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not getattr(value, "_is_protocol", False)
        and ">>> " not in (value.__doc__ or "")
    ]
    assert without == []


CLASSES = [name for name, value in public("") if inspect.isclass(value)]


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_are_documented(name: str) -> None:
    """What the package itself adds to a public class."""
    own = {
        attribute: member
        for cls in reversed(getattr(capibara_keras, name).__mro__)
        if cls.__module__.startswith("capibara_keras")
        for attribute, member in vars(cls).items()
        if not attribute.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    }
    assert [attribute for attribute, member in own.items() if not member.__doc__] == []


def test_no_name_is_public_twice() -> None:
    for module in MODULES:
        names = [name for name, _ in public(module)]
        assert len(names) == len(set(names)), module

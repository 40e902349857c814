"""What the site has beyond the pages in docs/: the API reference, the mathematics, and a place for every page.

`mkdocs` calls the functions whose names begin with `on_`. The package is read and not imported, so that a build needs
neither TensorFlow nor time. Run as a program, it lists the public names by page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1]
PACKAGE = DOCS.parent / "capibara_keras"

CLASSES = (
    "One class per algorithm, with Keras' arguments where Keras has it. "
    "`options` are [all others](../options.md). Methods and attributes are those of [`Optimizer`](optimizer.md)."
)

AREAS = {
    "constructors": ("reference/algorithms.md", "Algorithms", CLASSES),
    "callbacks": ("reference/callbacks.md", "Callbacks", "Each of them also tells the optimizer what `Attach` does."),
    "schedules": ("reference/schedules.md", "Schedules", "Functions of the update; `Schedule` has what all share."),
    "monitoring": ("reference/monitoring.md", "Monitoring", "Metrics, alerts, convergence: NumPy alone."),
    "recipes": ("reference/recipes.md", "Recipes", "Configurations with reasons and sources."),
    "tuning": ("reference/tuning.md", "Tuning", "Searching the options of an optimizer."),
    "rules": ("reference/rules.md", "Update rules", "The mathematics of each algorithm, as pure functions."),
    "migration": ("reference/migration.md", "Migration", "From Keras, torch, Hugging Face and tf-models."),
    "": ("reference/optimizer.md", "Optimizer and configuration", "`Optimizer`, its options, records and errors."),
}
"""Subpackage -> page, title, introduction; "" for what is in none of them."""

OWN_MEMBERS = {"constructors", "callbacks", "schedules"}
"""Pages of many classes of one base, which tells what all of them have."""

MATHEMATICS = "mathematics.md"


# The package, read -----------------------------------------------------------------------------------------


def tree(path: Path) -> ast.Module:
    """A file's syntax."""
    return ast.parse(path.read_text(encoding="utf-8"))


def public(module: str = "") -> list[str]:
    """`__all__` of the package or of a subpackage."""
    for node in tree(PACKAGE / module / "__init__.py").body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def origins() -> dict[str, str]:
    """Names that the package imports -> the subpackage they come from."""
    found = {}
    for node in tree(PACKAGE / "__init__.py").body:
        if isinstance(node, ast.ImportFrom):
            part = (node.module or "").removeprefix("capibara_keras").strip(".").split(".")[0]
            found |= {alias.name: part for alias in node.names}
    return found


def names_by_area() -> dict[str, list[str]]:
    """Full public names, by area: those of the package, and those that a subpackage alone has."""
    whose, areas = origins(), {area: [] for area in AREAS}
    modules = [area for area in AREAS if area]
    for name in public():
        area = whose.get(name, "")
        if name not in modules:
            areas[area if area in areas else ""].append(f"capibara_keras.{name}")
    for area in modules:
        known = {full.rsplit(".", 1)[1] for full in areas[area]}
        if area != "constructors":
            areas[area] += [f"capibara_keras.{area}.{name}" for name in public(area) if name not in known]
    return areas


def reference(area: str, names: list[str]) -> str:
    """A page of the API reference."""
    _, title, introduction = AREAS[area]
    options = "\n    options:\n      inherited_members: false" if area in OWN_MEMBERS else ""
    return "\n\n".join([f"# {title}", introduction, *(f"::: {name}{options}" for name in names)]) + "\n"


# Mathematics -----------------------------------------------------------------------------------------------


def formulas(folder: str) -> Iterator[tuple[str, str]]:
    """(class, what its docstring says before its arguments) for classes that have a formula or name their paper."""
    where = PACKAGE / folder
    for path in sorted(where.glob("*.py")) if where.is_dir() else [where.with_suffix(".py")]:
        for node in tree(path).body:
            text = ast.get_docstring(node) if isinstance(node, ast.ClassDef) else None
            if text and not node.name.startswith("_"):
                text = re.split(r"^(?:Args:|Raises:|Attributes:|>>> )", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
                if re.search(r"^    \S", text, flags=re.MULTILINE) or "paper" in assigned(node):
                    yield node.name, text


def assigned(node: ast.ClassDef) -> set[str]:
    """Names that a class sets with a type."""
    return {statement.target.id for statement in node.body if isinstance(statement, ast.AnnAssign)}


def mathematics() -> str:
    """A page of all formulas with their sources, from the docstrings beside the code."""
    parts = {
        "Algorithms": (
            "rules",
            "`g` is the gradient after clipping, `w` the weight, `rate` the learning rate. With decoupled decay, "
            "`w ← w - rate (u_t + weight_decay w)` unless a rule says otherwise.",
        ),
        "Clipping": ("clip", "Before the algorithm, on the gradient of the whole update."),
        "Schedules": (
            "schedules",
            "`t` is the update, from 0; `W` the end of the warmup, `T` the total, `P` the peak.",
        ),
    }
    introduction = (
        "Every formula beside its source, as the code's docstrings have it. What differs from the papers on purpose is "
        "in [deviations](deviations.md)."
    )
    lines = ["# Mathematics", introduction]
    for title, (folder, introduction) in parts.items():
        lines += [f"## {title}", introduction]
        for name, text in formulas(folder):
            lines += [f"### {name}", fenced(text)]
    return "\n\n".join(lines) + "\n"


def fenced(text: str) -> str:
    """Indented blocks as fenced ones."""
    found = re.sub(
        r"(?:^    .*\n?|^\n(?=    ))+",
        lambda block: "\n```text\n" + re.sub(r"^    ", "", block[0].strip("\n"), flags=re.MULTILINE) + "\n```\n",
        text,
        flags=re.MULTILINE,
    )
    return re.sub(r"\n{3,}", "\n\n", found).strip()


# What mkdocs calls -----------------------------------------------------------------------------------------


def pages_in(nav: Any) -> Iterator[str]:
    """All pages of a navigation."""
    for item in nav:
        for target in item.values() if isinstance(item, dict) else [item]:
            yield from pages_in(target) if isinstance(target, list) else [target]


def on_config(config: Any) -> Any:
    """Complete the navigation."""
    known = set(pages_in(config.nav))
    sections = {title: target for item in config.nav for title, target in item.items()}
    new = [page.name for page in sorted(DOCS.glob("*.md")) if page.name not in known]
    sections["Guides"] += [{title_of(DOCS / name): name} for name in new]
    sections["Reference"] += [{"Mathematics": MATHEMATICS}, {"API": [{t: page} for page, t, _ in AREAS.values()]}]
    return config


def title_of(page: Path) -> str:
    """Its first heading."""
    return page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    made = {AREAS[area][0]: reference(area, names) for area, names in names_by_area().items()}
    for path, content in (made | {MATHEMATICS: mathematics()}).items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that leave the site become the names of files in the repository."""
    outside = r"\[([^\]]*)\]\(((?:\.\./|scripts/)[^)\s]*)\)"

    def named(link: re.Match[str]) -> str:
        path = link[2].removeprefix("../") if link[2].startswith("../") else f"docs/{link[2]}"
        path = path.split("#")[0]
        return f"`{path}`" if link[1].strip("`") == path else f"{link[1]} (`{path}`)"

    return markdown if page.file.src_uri.startswith("reference/") else re.sub(outside, named, markdown)


if __name__ == "__main__":
    for area_, names_ in names_by_area().items():
        print(AREAS[area_][0], *names_, sep="\n    ")

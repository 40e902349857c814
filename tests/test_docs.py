"""The documentation: its code runs and prints what it says, its links lead somewhere, and nothing public is missing.

Before a block of Python a comment may say how it is run: `<!-- run: backend=jax devices=4 -->`, or
`<!-- not run: why -->`. A block of text right behind it is what it prints.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import pytest

import capibara_keras as ck
from tests.subprocess_runner import ROOT, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
HERE = Path(__file__).parent

HARDWARE = {"docs/distribution.md"}
"""Pages that may show code for machines that the tests do not have."""


@dataclass(frozen=True)
class Block:
    """A block of Python; `line` is that of its fence."""

    page: str
    line: int
    code: str
    options: dict[str, str]
    skipped: bool
    output: str | None


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("```python")]
    for start in starts:
        comment = next((line for line in reversed(lines[:start]) if line.strip()), "")
        code, end = fenced(lines, start)
        below = next((i for i in range(end + 1, len(lines)) if lines[i].strip()), end)
        output = fenced(lines, below)[0] if lines[below] == "```text" else None
        options = re.fullmatch(r"<!-- run: (.*) -->", comment)
        found.append(
            Block(
                page=page,
                line=start + 1,
                code=code,
                options=dict(pair.split("=") for pair in options[1].split()) if options else {},
                skipped=comment.startswith("<!-- not run: "),
                output=output,
            )
        )
    return found


def fenced(lines: list[str], start: int) -> tuple[str, int]:
    """What is between a fence and the next, and the line of that."""
    end = next(i for i in range(start + 1, len(lines)) if lines[i].startswith("```"))
    return "\n".join(lines[start + 1 : end]) + "\n", end


def execute(blocks: list[Block], folder: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """(page, line) -> what the block printed, and how it failed; one process per backend and number of devices."""
    results: dict[tuple[str, int], tuple[str, str]] = {}
    kinds = sorted({(b.options.get("backend", "tensorflow"), int(b.options.get("devices", 1))) for b in blocks})
    for backend, devices in kinds:
        pages: dict[str, list[tuple[int, str]]] = {}
        for b in blocks:
            if (b.options.get("backend", "tensorflow"), int(b.options.get("devices", 1))) == (backend, devices):
                pages.setdefault(b.page, []).append((b.line, b.code))
        file = folder / f"{backend}{devices}.json"
        file.write_text(json.dumps(pages), encoding="utf-8")
        done = run(HERE / "docs_blocks.py", [file], backend=backend, devices=devices, timeout=400)
        for page, rows in done.items():
            results |= {(page, line): (printed, problem) for line, printed, problem in rows}
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], tuple[str, str]]:
    """Of all pages; half of them beside the other half."""
    halves = [
        [block for page in pages for block in blocks_of(page) if not block.skipped]
        for pages in (NAMES[::2], NAMES[1::2])
    ]
    folders = [tmp_path_factory.mktemp("docs") for _ in halves]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(execute, halves, folders)
    return first | second


@pytest.mark.parametrize("page", NAMES)
def test_code_runs_and_prints_what_the_page_says(page: str, results: dict[tuple[str, int], tuple[str, str]]) -> None:
    for block in blocks_of(page):
        if block.skipped:
            compile(block.code, page, "exec")
            assert page in HARDWARE, f"{page}:{block.line} is not run"
            continue
        printed, problem = results[page, block.line]
        assert not problem, f"{page}:{block.line}\n{problem}"
        if block.output is not None:
            assert stripped(printed) == stripped(block.output), f"{page}:{block.line}"


def stripped(text: str) -> list[str]:
    """Lines without blanks behind them, and without empty ones around."""
    return [line.rstrip() for line in text.strip().splitlines()]


def test_pages_have_code() -> None:
    """Else the test above would say nothing."""
    assert sum(len(blocks_of(page)) for page in NAMES) >= 20
    assert blocks_of("README.md")


# Links ---------------------------------------------------------------------------------------------------


def links(page: str) -> Iterator[tuple[str, str]]:
    """(file relative to the page, anchor) of the links of a page that stay in the repository."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield file, anchor


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page: str) -> None:
    for file, anchor in links(page):
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page} links to {file}"
        assert not anchor or anchor in anchors(target), f"{page} links to {file}#{anchor}"


def test_pages_are_linked_from_the_index() -> None:
    """A page that nothing links to is not found."""
    linked = {file for file, _ in links("docs/index.md")}
    assert {page.name for page in PAGES[1:]} - {"index.md"} <= linked
    assert "docs/index.md" in {file for file, _ in links("README.md")}


# Completeness --------------------------------------------------------------------------------------------


FOR_CALLBACKS = {"let_fit_end"}
"""Methods that only this package's callbacks call."""


def methods() -> set[str]:
    """What `Optimizer` has beyond Keras' optimizers."""
    theirs = dir(keras.optimizers.Optimizer)
    return {
        name
        for name, value in inspect.getmembers(ck.Optimizer)
        if not name.startswith("_") and name not in theirs and (callable(value) or isinstance(value, property))
    } - FOR_CALLBACKS


@pytest.mark.parametrize("of", [ck, ck.callbacks, ck.schedules, ck.rules], ids=lambda module: module.__name__)
def test_public_names_are_mentioned(of: ModuleType) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in of.__all__ if not re.search(rf"\b{name}\b", text)]
    assert not missing


def test_methods_are_mentioned() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert "configure_scheduler" in methods()
    assert not [name for name in sorted(methods()) if not re.search(rf"\b{name}\b", text)]


# Generated parts -----------------------------------------------------------------------------------------


def script(name: str) -> dict[str, Any]:
    """What a script of the documentation defines, without what it does when called."""
    namespace: dict[str, Any] = {"__name__": name, "__file__": str(ROOT / "docs" / "scripts" / f"{name}.py")}
    exec(compile(Path(namespace["__file__"]).read_text(encoding="utf-8"), namespace["__file__"], "exec"), namespace)
    return namespace


def test_options_are_fresh() -> None:
    """`python docs/scripts/options.py` writes the page anew."""
    assert script("options")["page"]() == (ROOT / "docs" / "options.md").read_text(encoding="utf-8")


def test_arguments_are_fresh() -> None:
    """`python docs/scripts/parity.py arguments` prints them anew."""
    assert script("parity")["arguments_table"]() in (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")


def test_the_list_of_algorithms_is_fresh() -> None:
    """`python docs/scripts/algorithms.py` prints it anew."""
    assert script("algorithms")["table"]() in (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")


# The site ------------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name() -> None:
    """Of the package and of its modules: the site makes its pages from this list."""
    areas = script("site")["names_by_area"]()
    listed = {full.rsplit(".", 1)[1] for names in areas.values() for full in names} | set(areas)
    missing = set(ck.__all__) - listed
    for module in (ck.callbacks, ck.migration, ck.monitoring, ck.recipes, ck.rules, ck.schedules, ck.tuning):
        missing |= set(module.__all__) - listed
    assert not missing


def test_the_mathematics_has_every_algorithm() -> None:
    """With its formula and its source."""
    page = script("site")["mathematics"]()
    for rule in {*ck.rules.RULES.values(), *ck.schedules.SCHEDULES.values()}:
        assert f"### {rule.__name__}\n" in page
    assert page.count("```text") > 40 and "Kingma & Ba 2015" in page


def test_docstrings_are_markdown() -> None:
    """Examples are code, and an argument that is above 0 is no quotation."""
    as_markdown = script("docstrings")["as_markdown"]
    assert as_markdown("Add.\n\n>>> 1 + 1\n2\n\nNow.") == "Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nNow."
    assert as_markdown("Args:\n    a: > 0.\n    b: 1 > 0.") == "Args:\n    a: \\> 0.\n    b: 1 > 0."


@pytest.mark.slow
def test_the_site_builds_and_needs_no_network(tmp_path: Path) -> None:
    """Strictly; `make test` builds it too. Every name is in the inventory, and no page loads a thing from afar."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in tmp_path.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?(?:https?:)?//", html), page
        assert "<blockquote>" not in html, f"{page}: an example or an argument became a quotation"
    inventory = zlib.decompress((tmp_path / "objects.inv").read_bytes().split(b"zlib.\n", 1)[1]).decode()
    for names in script("site")["names_by_area"]().values():
        assert not [name for name in names if f"{name} py:" not in inventory]

"""Results as a table, as JSON, and as a chart."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measuring import Ratio, ratio


@dataclass(frozen=True)
class Line:
    """A comparison: the time of `one` over that of `other`, and the largest ratio that we want."""

    what: str
    one: str
    other: str
    goal: float | None = None


@dataclass(frozen=True)
class Row:
    """A comparison with its result."""

    what: str
    ratio: Ratio
    goal: float | None
    one: str
    other: str

    @property
    def met(self) -> str:
        """What to say of the goal."""
        return "" if self.goal is None else "met" if self.ratio.median <= self.goal else "missed"


def row(what: str, line: Line, times: Mapping[str, Sequence[float]]) -> Row:
    """The row of a line."""
    return Row(what, ratio(times, line.one, line.other), line.goal, line.one, line.other)


def first_rows(found: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[Row]:
    """Rows of the time to the first step, and of the size of its graph."""
    theirs, ours = names
    rows = []
    for how, goal in (("xla", 0.40), ("graph", None)):
        mine, other = found[f"{ours} {how}"], found[f"{theirs} {how}"]
        quotient = {key: mine[key] / other[key] for key in mine}
        rows.append(Row(f"time to the first step ({how}) / Keras", _exact(quotient["seconds"]), goal, ours, theirs))
        if how == "xla":
            rows.append(Row("operations in the graph / Keras", _exact(quotient["operations"]), 0.25, ours, theirs))
    quotient_mixed = found[f"{ours} graph"]["seconds"] / found[f"{theirs} xla"]["seconds"]
    rows.append(
        Row("time to the first step, uncompiled function / Keras compiled", _exact(quotient_mixed), None, ours, theirs)
    )
    return rows


def _exact(value: float) -> Ratio:
    return Ratio(value, value, value)


def machine() -> dict[str, Any]:
    """What it was measured on and with."""
    versions = {}
    for package in ("tensorflow", "tensorflow-cpu", "keras", "jax", "optax", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def write(rows: Sequence[Row], results: Mapping[str, Any], folder: Path) -> None:
    """Print the table; write `results.json`, `table.md` and `ratios.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = [("", "median (quartiles)", "goal", "")]
    table += [(r.what, str(r.ratio), "" if r.goal is None else f"{r.goal:g}", r.met) for r in rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    text = "\n".join([lines[0], "|---|---|---|---|", *lines[1:]])
    print(text)
    everything = dict(results) | {"ratios": [asdict(r) for r in rows]}
    for name, content in (("results.json", json.dumps(everything, indent=1)), ("table.md", text + "\n")):
        temporary = folder / f"{name}.part"
        temporary.write_text(content)
        temporary.replace(folder / name)
    chart(rows, folder / "ratios.png")
    print(f"written to {folder}/")


def chart(rows: Sequence[Row], path: Path) -> None:
    """A bar per comparison, its quartiles, and its goal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.36 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    at = range(len(rows))
    medians = [r.ratio.median for r in rows]
    spread = [[r.ratio.median - r.ratio.low for r in rows], [r.ratio.high - r.ratio.median for r in rows]]
    axes.barh(at, medians, xerr=spread, color="#4477aa", ecolor="#222222", height=0.6)
    for i, r in enumerate(rows):
        if r.goal is not None:
            axes.plot([r.goal, r.goal], [i - 0.4, i + 0.4], color="#cc3311", linewidth=2)
        beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"{r.ratio.median:.2f}", (r.ratio.high, i), **beside)
    axes.axvline(1, color="#888888", linewidth=1)
    axes.set_yticks(at, [r.what for r in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max([1.0, *(r.ratio.high for r in rows)]))
    axes.set_xlabel("time over the other's time (red: goal)")
    figure.savefig(path, dpi=120)

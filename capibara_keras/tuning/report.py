"""What a search found, as files: figures (PNG, SVG), a page (HTML), tables (CSV, JSON)."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from capibara_keras.errors import ConfigError
from capibara_keras.files import writable_directory, write_whole
from capibara_keras.tuning import progress
from capibara_keras.tuning.figures import FIGURES
from capibara_keras.tuning.trials import Search

__all__ = ["write"]


def write(search: Search, metric: str, folder: Path) -> dict[str, Path]:
    """All files of the report.

    Args:
        metric: name of the score, for titles.
        folder: made if it is not there.

    Returns:
        Name -> path: the figures as "slices.png" and "slices.svg", "trials.csv", "trials.json", "report.html".

    Raises:
        ConfigError: there are no trials yet, or the folder cannot be written.
    """
    if not search.trials:
        raise ConfigError("report: there are no trials yet")
    folder = writable_directory("folder", folder)
    files: dict[str, Callable[[Path], Any]] = {}
    drawings = {}
    for name in FIGURES:
        figure = _figure(name, search, metric)
        svg = io.StringIO()
        figure.savefig(svg, format="svg")
        drawings[name] = svg.getvalue()
        files[f"{name}.png"] = partial(figure.savefig, dpi=120)
        files[f"{name}.svg"] = partial(_write_text, text=drawings[name])
    files["trials.csv"] = partial(_write_csv, search)
    records = [t.to_json() for t in search.trials]
    files["trials.json"] = partial(_write_text, text=json.dumps(records, indent=1))
    files["report.html"] = partial(_write_text, text=_page(search, metric, drawings))
    for name, content in files.items():
        write_whole(folder / name, content)
    return {name: folder / name for name in files}


def _figure(name: str, search: Search, metric: str) -> Any:
    from matplotlib.figure import Figure

    rows = -(-len(search.space.searched) // 3)
    figure = Figure((8, 2.2 * rows + 1 if name == "slices" else 4.5), layout="constrained")
    FIGURES[name](search, metric, figure)
    return figure


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_csv(search: Search, path: Path) -> None:
    names = [d.name for d in search.space.dimensions]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "status", "score", "best_step", "steps", "seconds", *names])
        for t in search.trials:
            score, seconds = ("" if math.isnan(x) else x for x in (t.score, t.seconds))
            row = [t.number, t.status, score, t.best_step, t.steps, seconds]
            writer.writerow(row + [t.options.get(name, "") for name in names])


def _page(search: Search, metric: str, figures: Mapping[str, str]) -> str:
    """One file that needs no other."""
    best = search.best()
    counts = {s: sum(t.status == s for t in search.trials) for s in ("completed", "pruned", "diverged", "failed")}
    summary = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    head = f"best {metric} {progress.number(best.score)}, trial {best.number}" if best else "no result"
    options = {} if best is None else best.options
    rows = "".join(f"<tr><td>{html.escape(k)}<td>{html.escape(progress.number(v))}" for k, v in options.items())
    drawings = "\n".join(svg[svg.index("<svg") :] for svg in figures.values())
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Search for optimizer options</title>
<style>body{{font:15px sans-serif;max-width:60em;margin:2em auto}}svg{{max-width:100%;height:auto}}
pre{{overflow-x:auto;font-size:12px}}td{{padding:0 1em 0 0}}</style>
<h1>Search for optimizer options</h1><p>{len(search.trials)} trials ({summary}); {html.escape(head)}</p>
<table>{rows}</table>
{drawings}
<h2>All trials</h2><pre>{html.escape(progress.table(search, metric))}</pre></html>
"""

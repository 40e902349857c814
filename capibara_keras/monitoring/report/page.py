"""The page as files: PNG, SVG, and an HTML file that needs nothing else."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capibara_keras import errors
from capibara_keras.files import writable_directory, write_whole
from capibara_keras.monitoring.report.panels import draw
from capibara_keras.monitoring.report.story import Story

__all__ = ["write_page"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } th, td { border: 1px solid #ccc; padding: .3em .6em;
text-align: left; vertical-align: top; }
th { background: #f3f3f3; } .critical { background: #fbe3d6; } .warning { background: #fdf3d8; }
svg { width: 100%; height: auto; } pre { background: #f6f6f6; padding: 1em; overflow: auto; }
"""


def write_page(
    source: Any,
    directory: str | Path,
    *,
    title: str = "Training report",
    configuration: Mapping[str, Any] | None = None,
    pictures: bool = True,
) -> Path:
    """Write `report.html`, and with it `report.png` and `report.svg`.

    Each file replaces the one before only when it is whole.

    Args:
        source: a `Story`; or a history: the path of a file that `HealthMonitor` wrote, a list of step records, a
            dictionary of lists, a Keras `History`.
        directory: is made if it is not there.
        title: of the page.
        configuration: what `get_config` of the optimizer returned; shown below the figures.
        pictures: also write PNG and SVG.

    Returns:
        Path of the HTML file.

    Raises:
        ConfigError: there is nothing in the history, or the directory cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     print(write_page({"loss": [3.0, 2.0, 1.0], "learning_rate": [0.1] * 3}, directory).name)
    report.html
    """
    folder = writable_directory("directory", directory)
    story = source if isinstance(source, Story) else Story.of(source)
    if not story.updates:
        raise errors.ConfigError("source: it holds no update yet; there is nothing to show")
    figure = draw(story, title)
    image = io.StringIO()
    figure.savefig(image, format="svg")
    svg = image.getvalue()
    if pictures:
        write_whole(folder / "report.svg", lambda path: path.write_text(svg, encoding="utf-8"), "directory")
        write_whole(folder / "report.png", lambda path: figure.savefig(path, format="png", dpi=110), "directory")
    page = _html(story, title, svg, configuration)
    write_whole(folder / "report.html", lambda path: path.write_text(page, encoding="utf-8"), "directory")
    return folder / "report.html"


def _html(story: Story, title: str, svg: str, configuration: Mapping[str, Any] | None) -> str:
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head>',
        f"<body><h1>{html.escape(title)}</h1>",
        re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL),
        "<h2>Alerts</h2>",
        _alert_table(story),
    ]
    if configuration is not None:
        text = json.dumps(_plain(configuration), indent=2, ensure_ascii=False)
        parts += ["<h2>Configuration</h2>", f"<pre>{html.escape(text, quote=False)}</pre>"]
    return "\n".join([*parts, "</body></html>", ""])


def _alert_table(story: Story) -> str:
    if not story.alerts:
        return "<p>None.</p>"
    names = ("step", "level", "id", "layer", "message", "suggestion")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for alert in story.alerts:
        cells = "".join(f"<td>{html.escape(str(getattr(alert, name)))}</td>" for name in names)
        rows.append(f'<tr class="{html.escape(alert.level)}">{cells}</tr>')
    return f"<table><tr>{head}</tr>\n" + "\n".join(rows) + "</table>"


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)

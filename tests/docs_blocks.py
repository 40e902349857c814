"""Runs blocks of Python from documentation pages; a program for `tests.subprocess_runner`.

`sys.argv[1]` is a JSON file: {page: [[line, code], …]}. The blocks of a page share a namespace and a temporary folder.
Prints {page: [[line, what it printed, traceback or ""], …]} as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any


def run_block(page: str, line: int, code: str, namespace: dict[str, Any]) -> tuple[int, str, str]:
    """Where it was, what it printed, and how it failed."""
    printed, problem = io.StringIO(), ""
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile("\n" * line + code, page, "exec"), namespace)
        except Exception:
            problem = traceback.format_exc(limit=-4)
    return line, printed.getvalue(), problem


def main() -> None:
    """Run all pages, each as if it were the first."""
    import keras

    results = {}
    for page, blocks in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")).items():
        keras.backend.clear_session()
        namespace: dict[str, Any] = {"__name__": "__main__"}
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            results[page] = [run_block(page, line, code, namespace) for line, code in blocks]
            os.chdir("/")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

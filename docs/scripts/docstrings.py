"""Docstrings as Markdown: an extension of griffe, which reads the package for the API reference."""

from __future__ import annotations

import re
from typing import Any

import griffe


def as_markdown(text: str) -> str:
    """A docstring with a fence around each example, and without an argument that begins as a quotation.

    >>> as_markdown("Add.\\n\\n>>> 1 + 1\\n2")
    'Add.\\n\\n```pycon\\n>>> 1 + 1\\n2\\n```'
    >>> as_markdown("epsilon: > 0.")
    'epsilon: \\\\> 0.'
    """
    text = re.sub(r"^( *[\w, ]+: )>", r"\1\\>", text, flags=re.MULTILINE)
    return re.sub(r"^>>> .*(?:\n.+)*", r"```pycon\n\g<0>\n```", text, flags=re.MULTILINE)


class Markdown(griffe.Extension):
    """Griffe calls it with each object that it has read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

"""Prints the table of docs/algorithms.md: `python docs/scripts/algorithms.py`."""

from __future__ import annotations

import capibara_keras as ck


def table() -> str:
    """One row per algorithm, as Markdown."""
    lines = ["| `algorithm=` | class | bytes per parameter | default rate | use | paper |", "|---|---|---|---|---|---|"]
    for a in ck.algorithms():
        size = f"{a.state_bytes_per_parameter:.2f}".rstrip("0").rstrip(".")
        cells = (f"`{a.name}`", f"`{a.class_name}`", size, f"{a.default_learning_rate:g}", a.use.rstrip("."), a.paper)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

"""`python -m benchmarks`: all of it, or the parts that are named. Prints tables, writes JSON and a chart."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from benchmarks import fitting, measuring, report
from benchmarks.report import Line

OURS, KERAS = "tensorflow: ours adamw+clip", "tensorflow: keras adamw+clip"
TORCH, FLOOR = "torch: torch adamw+clip", "floor: c adamw+clip"

GOALS = {
    "42M": [
        Line("compiled step / Keras", f"{OURS} xla", f"{KERAS} xla", 0.30),
        Line("compiled step / torch fused", f"{OURS} xla", TORCH, 0.75),
        Line("compiled step / floor", f"{OURS} xla", FLOOR, 1.5),
        Line("Keras / floor", f"{KERAS} xla", FLOOR),
        Line("torch fused / floor", TORCH, FLOOR),
        Line("uncompiled function / Keras", f"{OURS} graph", f"{KERAS} graph", 0.30),
        Line("eager / Keras", f"{OURS} eager", f"{KERAS} eager", 0.06),
        Line("norms of each update / without", f"{OURS}, norms graph", f"{OURS} graph", 1.5),
        Line("norms of each update / without, compiled", f"{OURS}, norms xla", f"{OURS} xla"),
        Line("norms of every 10th / without", f"{OURS}, norms/10 graph", f"{OURS} graph"),
        Line("state in 8 bits / in 32", f"{OURS}, 8bit graph", f"{OURS} graph", 1.3),
        Line("state in bfloat16 / float32", f"{OURS}, bfloat16 graph", f"{OURS} graph"),
        Line("accumulation of 4 / Keras", f"{OURS}, accumulate 4 graph", f"{KERAS}, accumulate 4 graph"),
        Line("JAX with clip / optax without", "jax: ours adamw+clip", "jax: optax adamw", 1.05),
        Line("JAX with clip / optax with", "jax: ours adamw+clip", "jax: optax adamw+clip"),
    ],
    "10M": [
        Line("compiled step / Keras", f"{OURS} xla", f"{KERAS} xla"),
        Line("uncompiled function / Keras", f"{OURS} graph", f"{KERAS} graph"),
    ],
    "tiny": [
        Line("compiled step / Keras", f"{OURS} xla", f"{KERAS} xla"),
        Line("uncompiled function / Keras", f"{OURS} graph", f"{KERAS} graph"),
        Line("eager / Keras", f"{OURS} eager", f"{KERAS} eager"),
    ],
    "embedding": [
        Line("compiled step / Keras", f"{OURS} xla", f"{KERAS} xla"),
        Line("compiled step / torch fused", f"{OURS} xla", TORCH),
    ],
}
"""What is compared with what on which shapes, and the largest ratio that we want."""

FIRST = ("keras adamw+clip", "ours adamw+clip")


def main() -> None:
    """Parse the arguments, measure, report."""
    parts = ["step", "first", "fit", "memory", "replicas"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; default: all")
    parser.add_argument("--shapes", nargs="*", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--rounds", type=int, default=25, help="of every comparison")
    parser.add_argument("--torch", default=None, metavar="PYTHON", help="an interpreter that has torch, for its rows")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    arguments = parser.parse_args()
    chosen = arguments.parts or parts
    if unknown := set(chosen) - set(parts):
        parser.error(f"unknown part {sorted(unknown)[0]!r}: choose from {', '.join(parts)}")

    results: dict[str, object] = {"machine": report.machine()}
    rows: list[report.Row] = []
    if "step" in chosen:
        for shapes in arguments.shapes:
            lines = [line for line in GOALS[shapes] if available(line, arguments.torch)]
            times = measuring.steps(shapes, wanted(lines), arguments.rounds, arguments.torch)
            results[f"step {shapes}"] = times
            rows += [report.row(f"{shapes}: {line.what}", line, times) for line in lines]
    if "first" in chosen:
        found = measuring.first("42M", [f"{name} {how}" for how in ("xla", "graph") for name in FIRST], 3)
        results["first"] = found
        rows += report.first_rows(found, FIRST)
    for part, measure in (("fit", fitting.fit), ("memory", fitting.memory), ("replicas", fitting.replicas)):
        if part in chosen:
            found, more = measure(arguments.rounds)
            results[part] = found
            rows += more
    report.write(rows, results, arguments.out)


def available(line: Line, torch: str | None) -> bool:
    """Whether this machine has what a line compares."""
    needs = {name.split(":")[0] for name in (line.one, line.other)}
    return ("torch" not in needs or torch is not None) and ("floor" not in needs or shutil.which("cc") is not None)


def wanted(lines: list[Line]) -> dict[str, list[str]]:
    """Family -> contenders."""
    result: dict[str, list[str]] = {}
    for line in lines:
        for family, name in (key.split(": ") for key in (line.one, line.other)):
            if name not in result.setdefault(family, []):
                result[family].append(name)
    return result


if __name__ == "__main__":
    main()

"""`python -m benchmarks.reliability [PART...]`: runs parts, counts in a file, prints a table.

python -m benchmarks.reliability                          every part, at its full size: some hours
python -m benchmarks.reliability fuzz --count 500         a smaller one
python -m benchmarks.reliability kill --seconds 170       as many as there is time for; the next call goes on
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability import disk, files, fuzz, kill, poison, soak, untrusted
from benchmarks.reliability.common import Ledger

PARTS: dict[str, tuple[int, Callable[[Ledger, int, float], None]]] = {
    "kill": (200, kill.run),  # first: it forks before TensorFlow has begun
    "fuzz": (10_000, fuzz.run),
    "poison": (10_000, poison.run),
    "files": (2_000, files.run),
    "disk": (4, lambda ledger, count, seconds: disk.run(ledger)),
    "untrusted": (40, lambda ledger, count, seconds: untrusted.run(ledger)),
    "soak": (3600, lambda ledger, count, seconds: soak.run(ledger, min(count, seconds))),
}
"""Part -> its full size (of `soak` in seconds), and what runs it."""


def table(ledger: Ledger) -> str:
    """A row per part."""
    lines = ["| part | tried | failed | details |", "| --- | --- | --- | --- |"]
    for part, entry in ledger.entries.items():
        details = ", ".join(f"{k} {v}" for k, v in entry.items() if k not in ("count", "failures"))
        lines.append(f"| {part} | {entry['count']} | {len(entry['failures'])} | {details} |")
    return "\n".join(lines)


def main() -> int:
    """The exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--count", type=int, help="stop when so many are counted; of `soak`, seconds")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop each part after so long")
    parser.add_argument("--seed", type=int, default=0, help="of a new file; other seeds, other batches and kills")
    parser.add_argument("--out", type=Path, default=Path("runs/reliability.json"), help="(%(default)s)")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    ledger = Ledger(arguments.out, arguments.seed)
    for part in [name for name in PARTS if name in arguments.parts or not arguments.parts]:
        size, run = PARTS[part]
        print(f"{part} ...", file=sys.stderr, flush=True)
        run(ledger, arguments.count or size, arguments.seconds)
        print(f"{part}: {ledger.count(part)} tried, {len(ledger.entries[part]['failures'])} failed", file=sys.stderr)
    print(table(ledger))
    failures = [failure for entry in ledger.entries.values() for failure in entry["failures"]]
    for failure in failures:
        print(f"\n{failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

"""A process that holds contenders of one framework, and runs them when asked.

Reads lines from standard input: a contender's name, for one timed step; `first NAME` for the time to its first step.
Answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time


def main() -> None:
    family, shapes_name, names = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    os.environ.setdefault("KERAS_BACKEND", "jax" if family == "jax" else "tensorflow")
    out, sys.stdout = sys.stdout, sys.stderr
    from benchmarks import contenders, shapes

    chosen = shapes.SHAPES[shapes_name]
    steps = contenders.FAMILIES[family](chosen, names)
    for name, step in steps.items():
        for _ in range(22 if "/10" in name else 3):  # the first 20 updates are all measured
            step()
    print(json.dumps("ready"), file=out, flush=True)
    for line in sys.stdin:
        request = line.strip()
        if request.startswith("first "):
            answer: object = contenders.tensorflow_first(chosen, request.removeprefix("first "))
        else:
            start = time.perf_counter()
            steps[request]()
            answer = time.perf_counter() - start
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()

"""`python -m benchmarks.health [--half NAME] [--case NAME] [--json FILE]`: train, judge, print the table."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

from benchmarks.health.case import Case
from benchmarks.health.cases import CASES
from benchmarks.health.recording import Recording, record
from benchmarks.health.scoring import Run, Score, replay, replay_autotrainer, score
from benchmarks.health.tasks import SEEDS, TASKS
from capibara_keras.files import write_whole


def main() -> None:
    options = arguments()
    judged: dict[str, list[Run]] = {OURS: [], THEIRS: []}
    deadline = time.monotonic() + options.seconds
    for case, task, seed in wanted(options):
        if time.monotonic() > deadline:
            raise SystemExit("out of time: run it again, what was recorded is kept")
        recording = recorded(case, task, seed, options.recordings)
        for name, alerts in (
            (OURS, replay(recording) if options.replay else recording.alerts),
            (THEIRS, replay_autotrainer(recording, case)),
        ):
            judged[name].append(Run(case, task, seed, tuple(alerts), recording.onset))
    show(judged, options.verbose)
    if options.json:
        write(judged, options.json)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.health", description=__doc__)
    parser.add_argument("--half", choices=sorted(SEEDS), help="default: both")
    parser.add_argument("--case", action="append", help="only this kind of training; may be given more than once")
    parser.add_argument("--seeds", type=int, help="only the first so many seeds")
    parser.add_argument("--recordings", type=Path, help="folder where recordings are kept, and taken from")
    parser.add_argument("--replay", action="store_true", help="give recordings to the rules as they are now")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--verbose", action="store_true", help="print each run")
    return parser.parse_args()


def wanted(options: argparse.Namespace) -> Iterator[tuple[Case, str, int]]:
    """The runs that were asked for."""
    for case in CASES:
        for task in case.tasks:
            half = TASKS[task].half
            if options.half in (None, half) and (not options.case or case.name in options.case):
                for seed in SEEDS[half][: options.seeds]:
                    yield case, task, seed


def recorded(case: Case, task: str, seed: int, folder: Path | None) -> Recording:
    """The recording of a run; trains unless it is there already."""
    path = folder / f"{case.name}-{task}-{seed}.pickle" if folder else None
    if path and path.exists():
        return pickle.loads(path.read_bytes())
    keras.backend.clear_session()
    result = record(case.make(TASKS[task], seed), seed)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda file: file.write_bytes(pickle.dumps(result)))
    return result


OURS, THEIRS = "capibara_keras", "AUTOTRAINER"
GROUP = f"{'precision':>10} {'recall':>7} {'delay':>6} {'layer':>6} {'disturbed':>10}"
HEADER = f"{'':20} {'':>5}  {OURS:^43}  {THEIRS:^43}\n{'':20} {'runs':>5}  {GROUP}  {GROUP}"


def cells(total: Score) -> str:
    """One judge's numbers; "-" where there is nothing to count."""
    layer = f"{total.named / total.found:.2f}" if total.found else "-"
    disturbed = total.disturbed if total.sick < total.runs else "-"
    numbers = f"{total.precision:10.3f} {total.recall:7.3f} {total.delay:6.0f} {layer:>6} {disturbed:>10}"
    return numbers.replace("nan", "  -")


def show(judged: dict[str, list[Run]], verbose: bool) -> None:
    """One table for each half, with the baseline beside."""
    for half in SEEDS:
        runs = {name: [run for run in part if TASKS[run.task].half == half] for name, part in judged.items()}
        if not runs[OURS]:
            continue
        print(f"\n{half} half\n{HEADER}")
        cases = list(dict.fromkeys(run.case for run in runs[OURS]))
        groups = {case.name: {case.name} for case in cases}
        groups["all healthy"] = {case.name for case in cases if case.healthy}
        groups["all sick"] = {case.name for case in cases if not case.healthy}
        groups["all"] = set(groups) - {"all healthy", "all sick"}
        for title, names in groups.items():
            totals = [score([run for run in runs[who] if run.case.name in names]) for who in (OURS, THEIRS)]
            print(f"{title:20} {totals[0].runs:5}  {cells(totals[0])}  {cells(totals[1])}")
        for wrong, count in score(runs[OURS]).wrong.most_common():
            print(f"    false: {wrong} ({count})")
        for run in runs[OURS]:
            if not run.case.healthy and not run.hits:
                print(f"    missed: {run.case.name}/{run.task}/{run.seed}")
        for run in runs[OURS] if verbose else ():
            said = ", ".join(f"{a.id}@{a.step}{'[' + a.layer + ']' if a.layer else ''}" for a in run.alerts)
            mark = "ok " if (run.case.healthy or run.hits) and not run.false else "BAD"
            print(f"    {mark} {run.case.name}/{run.task}/{run.seed}: {said}")


def write(judged: dict[str, list[Run]], path: Path) -> None:
    """Results as JSON."""
    rows = []
    for name, runs in judged.items():
        for run in runs:
            alerts = [{"id": a.id, "level": a.level, "step": a.step, "layer": a.layer} for a in run.alerts]
            labels = {"expected": run.case.expected, "onset": run.onset, "half": TASKS[run.task].half}
            rows.append(
                {"by": name, "case": run.case.name, "task": run.task, "seed": run.seed, "alerts": alerts, **labels}
            )
    write_whole(path, lambda file: file.write_text(json.dumps(rows, indent=1)))


if __name__ == "__main__":
    main()

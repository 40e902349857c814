"""The table and the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.training.scores import LONGEST, costs, profile, ranked, ratios
from benchmarks.training.workloads import WORKLOADS

__all__ = ["table", "workloads", "write"]

Results = Mapping[str, Mapping[str, Any]]
HIGHLIGHTED = 6
"""Contenders that a profile names, beside Keras'."""


def write(results: Results, folder: Path) -> str:
    """Draw both figures into a folder; returns both tables."""
    import matplotlib

    matplotlib.use("Agg")
    complete = finished(results)
    folder.mkdir(parents=True, exist_ok=True)
    draw_updates(complete, folder / "training_updates.png")
    draw_profiles(complete, folder / "training_profiles.png")
    return f"{workloads()}\n\n{table(complete)}"


def finished(results: Results) -> Results:
    """Only contenders that are through with all workloads that any is."""
    names = set.intersection(*(set(races) for races in results.values()))
    return {w: {name: race for name, race in races.items() if name in names} for w, races in results.items()}


def table(results: Results) -> str:
    """Updates to the target by workload, and the scores by updates and by time; the best first."""
    updates, seconds = costs(results, "updates"), costs(results, "seconds")
    by_time = ranked(seconds)
    titles = [WORKLOADS[w].title.replace("\n", " ") for w in results]
    lines = [
        "| | score | score by time | " + " | ".join(titles) + " |",
        "|---|---|---|" + "---|" * len(titles),
    ]
    for name, value in ranked(updates).items():
        cells = [_cell(updates[name][w], seconds[name][w]) for w in results]
        lines.append(f"| {name} | {value:.2f} | {by_time[name]:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def workloads() -> str:
    """What is trained, as a table."""
    lines = ["| workload | network | parameters | updates | batch | target |", "|---|---|---|---|---|---|"]
    for each in WORKLOADS.values():
        data, network = each.title.split(",\n")
        cells = (data, network, f"{each.network().count_params():,}", each.steps, each.batch_size)
        lines.append("| " + " | ".join(map(str, cells)) + f" | {each.target:g} {each.unit} |")
    return "\n".join(lines)


def _cell(updates: float, seconds: float) -> str:
    return f"{updates:.0f} ({seconds:.2g} s)" if math.isfinite(updates) else "–"


def draw_updates(results: Results, path: Path) -> None:
    """A panel for each workload, a row for each contender, a dot for each seed."""
    import matplotlib.pyplot as plt

    order = list(reversed(ranked(costs(results, "updates"))))
    figure, axes = plt.subplots(
        1, len(results), figsize=(12, 0.5 + 0.24 * len(order)), sharey=True, layout="constrained"
    )
    for ax, (workload, races) in zip(axes, results.items(), strict=True):
        longest = WORKLOADS[workload].steps
        for y, name in enumerate(order):
            reached = [run["reached"] for run in races[name]["seeds"]]
            color = "tab:orange" if name.startswith("Keras") else "tab:blue"
            found = [x for x in reached if x is not None]
            ax.plot(found, [y] * len(found), "o", color=color, alpha=0.7, markersize=5)
            if len(found) < max(len(reached), 1):
                ax.plot([longest * 1.15], [y], "x", color="tab:red", markersize=5)
        ax.set_xscale("log")
        ax.set_title(WORKLOADS[workload].title, fontsize=10)
        ax.set_xlabel("updates")
        ax.axvline(longest, color="0.6", linewidth=0.8, linestyle=":")
        ax.grid(axis="both", color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(order)), order, fontsize=8)
    axes[0].set_ylim(-0.7, len(order) - 0.3)
    figure.suptitle("Updates to the target: a dot for each seed; a cross: not within the dotted line", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_profiles(results: Results, path: Path) -> None:
    """Profiles by updates and by time; the best and Keras' by name, the others in grey."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True, layout="constrained")
    for ax, measure in zip(axes, ("updates", "seconds"), strict=True):
        found = costs(results, measure)
        scores, relative = ranked(found), ratios(found)
        named = list(scores)[:HIGHLIGHTED] + [name for name in scores if name.startswith("Keras")]
        colors = dict(zip(dict.fromkeys(named), plt.get_cmap("tab10").colors, strict=False))
        for number, name in enumerate(reversed(scores)):
            x, y = profile(relative[name])
            kept = name in colors
            ax.step(
                x,
                y,
                where="post",
                color=colors.get(name, "0.85"),
                linestyle="--" if name.startswith("Keras") else "-",
                linewidth=1.8 if kept else 0.8,
                zorder=2 + number / 100 if kept else 1,
            )
        for name, color in colors.items():
            style = "--" if name.startswith("Keras") else "-"
            ax.plot([], [], style, color=color, label=f"{name} ({scores[name]:.2f})")
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title="score")
        ax.set_xlim(1, LONGEST)
        ax.set_ylim(0, 1.03)
        ax.set_xlabel(f"{measure} to the target / those of the best")
        ax.grid(color="0.92")
    axes[0].set_ylabel("share of workloads")
    figure.savefig(path, dpi=110)
    plt.close(figure)

"""Convergence analysis on curves whose truth is known: `python -m benchmarks.convergence [--repeats 50] [--first 0]`.

Prints a table: per family of curves, how often the status is right, median and 90% point of the relative errors of rate
and ETA, and how often the 95% intervals hold the truth.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from capibara_keras.monitoring.convergence import ConvergenceAnalysis, analyze

Noise = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Curve:
    """A curve without noise, and what is true of it at its end."""

    values: np.ndarray
    status: str
    rate: float = math.nan
    eta: float = math.nan


Make = Callable[[np.random.Generator, int], Curve | None]


@dataclass(frozen=True)
class Family:
    """Curves of one kind: `make(rng, n)`, with `noise` in units of the drop."""

    kind: str
    make: Make
    noise: Noise | None = None
    scale: float = 1.0
    points: int = 2000


def labelled(values: np.ndarray, left: float, rate: float, eta: float) -> Curve | None:
    """A falling curve; `None` where 1% is all but exactly what is left, so that neither label would be right."""
    if 0.007 < left < 0.014:
        return None
    return Curve(values, "converged" if left <= 0.01 else "converging", rate, max(0.0, eta))


def exponential(*, lengths: tuple[float, float] = (2.0, 3.5), floor: float = 1.0) -> Make:
    """c + exp(-r t), over some time constants."""

    def make(rng: np.random.Generator, n: int) -> Curve | None:
        r = rng.uniform(*lengths) / n
        left = math.exp(-r * (n - 1))
        return labelled(floor + np.exp(-r * np.arange(n)), left, r, math.log(100) / r - (n - 1))

    return make


def power(*, exponents: tuple[float, float] = (0.4, 1.2), floor: float = 1.0) -> Make:
    """c + (1 + t/t0)^-p, the drop of most training losses."""

    def make(rng: np.random.Generator, n: int) -> Curve | None:
        p, t0 = rng.uniform(*exponents), n * 10 ** rng.uniform(-2, -1)
        excess = (1 + np.arange(n) / t0) ** -p
        return labelled(floor + excess, float(excess[-1]), p / (t0 + n - 1), t0 * (100 ** (1 / p) - 1) - (n - 1))

    return make


def flat(rng: np.random.Generator, n: int) -> Curve:
    """A constant."""
    return Curve(np.full(n, 2.0), "plateau")


def rising(rng: np.random.Generator, n: int) -> Curve:
    """Falls for a while, then grows beyond where it began."""
    t = np.arange(n) / n
    return Curve(1 + np.exp(-t * 8) + 0.02 * np.exp(rng.uniform(4, 7) * t), "diverging")


def white(rng: np.random.Generator, n: int) -> np.ndarray:
    """Normal, independent."""
    return rng.normal(size=n)


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    """Student's t with 3 degrees of freedom."""
    return rng.standard_t(3, size=n)


def correlated(phi: float) -> Noise:
    """AR(1) of unit variance."""

    def noise(rng: np.random.Generator, n: int) -> np.ndarray:
        e, x = rng.normal(size=n) * math.sqrt(1 - phi**2), np.empty(n)
        x[0] = rng.normal()
        for i in range(1, n):
            x[i] = phi * x[i - 1] + e[i]
        return x

    return noise


def spiked(rng: np.random.Generator, n: int) -> np.ndarray:
    """White, and ten spikes of fifty deviations."""
    x = rng.normal(size=n)
    x[rng.integers(0, n, 10)] += 50
    return x


def fading(rng: np.random.Generator, n: int) -> np.ndarray:
    """White, its deviation falls from 1 to a quarter."""
    return rng.normal(size=n) * np.geomspace(1, 0.25, n)


FAMILIES = {
    "exp, clean": Family("exp", exponential()),
    "exp, noise .03": Family("exp", exponential(), white, 0.03),
    "exp, noise .1": Family("exp", exponential(), white, 0.1),
    "exp, noise .3": Family("exp", exponential(), white, 0.3),
    "exp, t3 noise .05": Family("exp", exponential(), heavy, 0.05),
    "exp, AR(.8) .05": Family("exp", exponential(), correlated(0.8), 0.05),
    "exp, AR(.95) .05": Family("exp", exponential(), correlated(0.95), 0.05),
    "exp, 10 spikes": Family("exp", exponential(), spiked, 0.03),
    "exp, fading noise": Family("exp", exponential(), fading, 0.1),
    "exp, negative loss": Family("exp", exponential(floor=-3.0), white, 0.03),
    "exp, 200 points": Family("exp", exponential(), white, 0.03, 200),
    "exp, 20000 points": Family("exp", exponential(), white, 0.1, 20000),
    "exp, 2/3 of tau seen": Family("exp early", exponential(lengths=(0.5, 0.8)), white, 0.01),
    "exp, converged": Family("exp end", exponential(lengths=(7.0, 20.0)), white, 0.05),
    "power, clean": Family("power", power()),
    "power, noise .01": Family("power", power(), white, 0.01),
    "power, noise .05": Family("power", power(), white, 0.05),
    "power, t3 noise .03": Family("power", power(), heavy, 0.03),
    "power, AR(.8) .02": Family("power", power(), correlated(0.8), 0.02),
    "power, fading noise": Family("power", power(), fading, 0.05),
    "power, floor 0": Family("power", power(floor=0.0), white, 0.01),
    "power, 20000 points": Family("power", power(), white, 0.1, 20000),
    "flat, clean": Family("flat", flat),
    "flat, noise": Family("flat", flat, white, 0.1),
    "flat, t3 noise": Family("flat", flat, heavy, 0.1),
    "flat, AR(.8)": Family("flat", flat, correlated(0.8), 0.1),
    "flat, AR(.95)": Family("flat", flat, correlated(0.95), 0.1),
    "flat, spikes": Family("flat", flat, spiked, 0.1),
    "flat, 100 points": Family("flat", flat, white, 0.1, 100),
    "diverging": Family("diverging", rising, white, 0.02),
}


@dataclass(frozen=True)
class Row:
    """What came out for one curve; errors are relative, `nan` where there is nothing to compare."""

    status: bool
    rate: float
    eta: float
    rate_inside: float
    eta_inside: float
    has_eta: bool
    seconds: float


def one(name: str, seed: int) -> Row:
    """One curve: made, analysed and compared."""
    family, rng = FAMILIES[name], np.random.default_rng([seed, *name.encode()])
    curve = None
    while curve is None:
        curve = family.make(rng, family.points)
    noise = 0.0 if family.noise is None else family.scale * family.noise(rng, family.points)
    start = time.process_time()
    found = analyze(curve.values + noise)
    seconds = time.process_time() - start
    return Row(
        status=found.status == curve.status,
        rate=abs(found.rate / curve.rate - 1),
        eta=abs(found.eta_steps / curve.eta - 1) if curve.eta > 0 else math.nan,
        rate_inside=inside(found, "rate", curve.rate),
        eta_inside=inside(found, "eta_steps", curve.eta),
        has_eta=math.isfinite(found.eta_steps),
        seconds=seconds,
    )


def inside(found: ConvergenceAnalysis, name: str, truth: float) -> float:
    """1 if the interval holds the truth, 0 if not."""
    low, high = found.intervals[name]
    slack = 1e-3 * abs(truth)  # clean curves have intervals without width
    return float(low - slack <= truth <= high + slack) if math.isfinite(truth) else math.nan


def mean(values: list[float]) -> float:
    """Of what is known."""
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def quantiles(values: list[float]) -> str:
    """Median and 90% point, in percent."""
    known = [100 * v for v in values if not math.isnan(v)]
    return "/".join(f"{q:.1f}" for q in np.quantile(known, (0.5, 0.9))) if known else "-"


def percent(value: float) -> str:
    """As a percentage."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def line(name: str, rows: list[Row]) -> str:
    """A row of the table."""
    cells = [
        f"{name:22}",
        f"{len(rows):5}",
        percent(mean([r.status for r in rows])),
        quantiles([r.rate for r in rows]),
        quantiles([r.eta for r in rows]),
        percent(mean([r.rate_inside for r in rows])),
        percent(mean([r.eta_inside for r in rows])),
        percent(mean([r.has_eta for r in rows])),
        f"{1000 * mean([r.seconds for r in rows]):.0f}",
    ]
    return " | ".join(cells)


def main() -> None:
    """The table, then a row for each kind of curve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50, help="curves per family (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="first seed (%(default)s); the defaults chose no constant")
    parser.add_argument("--only", default="", help="part of the names of families")
    arguments = parser.parse_args()
    print("family | curves | status right % | rate error %: median/90% | eta error % | rate in interval %", end=" | ")
    print("eta in interval % | has an eta % | ms")
    kinds: dict[str, list[Row]] = {}
    for name, family in FAMILIES.items():
        if arguments.only in name:
            rows = [one(name, seed) for seed in range(arguments.first, arguments.first + arguments.repeats)]
            kinds.setdefault(family.kind, []).extend(rows)
            print(line(name, rows), flush=True)
    print()
    for kind, rows in kinds.items():
        print(line(f"all of {kind}", rows))
    print(line("all", [row for rows in kinds.values() for row in rows]))


if __name__ == "__main__":
    main()

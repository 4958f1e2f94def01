"""Measures the report's statistics where the truth is known, and writes the tables of docs/statistics.md.

    python docs/error_rates.py            measure, minutes on one core
    python docs/error_rates.py --runs     no measurement: write what benchmarks/aa.py found
    python docs/error_rates.py --check    no measurement: is what the page says of the A/A runs what they found?

Every cell has a random stream of its own, seeded by its name, so cells can be added without changing others.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optsweep.inference import loss_curve, statistics
from optsweep.inference.looks import LOOKS, nominal_level
from optsweep.report.across.tasks import mean_ranks

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "statistics.md"
AA = ROOT / "benchmarks" / "results" / "aa-cpu.json"

OF_SEARCHES = " × ("
"""In the name of a figure that is of whole searches, R × (trials + seeds)."""

SEED = 2024
REPETITIONS = 2_000
SLOW = 500  # repetitions of what takes long
SIZES = (5, 8, 10, 20)
ALPHA = 1 - statistics.CONFIDENCE
BCA_RESAMPLES = 1_999


def _skewed(sigma: float) -> Draw:
    """Log-normal, shifted and scaled to mean 0 and variance 1."""
    mean, sd = math.exp(sigma**2 / 2), math.sqrt((math.exp(sigma**2) - 1) * math.exp(sigma**2))
    return lambda rng, size: (rng.lognormal(0, sigma, size) - mean) / sd


NOISES: Mapping[str, Draw] = {  # all of mean 0 and variance 1
    "normal": lambda rng, size: rng.standard_normal(size),
    "t3": lambda rng, size: rng.standard_t(3, size) / math.sqrt(3),
    "skewed": _skewed(0.5),
    "very skewed": _skewed(1.0),
}


# -- what is measured: each gives, per repetition, whether it covered or erred -----------------------------------------


def t_covers(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """95 % paired t interval of the mean difference, which is 0."""
    for row in draw(rng, (REPETITIONS, n)):
        yield _covers(statistics.mean_interval(row), 0.0)


def t_errs(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """Paired t test at 5 %, without a difference."""
    for row in draw(rng, (REPETITIONS, n)):
        yield (statistics.paired_t(row).p or 1.0) < ALPHA


def bca_covers(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """95 % BCa interval; the product gives none under 20 values, and this is why."""
    rows = draw(rng, (REPETITIONS, n))
    for part in np.split(rows, 20):  # what the bootstrap holds at once
        found = stats.bootstrap(
            (part,), np.mean, n_resamples=BCA_RESAMPLES, method="BCa", axis=-1, vectorized=True, rng=rng
        ).confidence_interval
        inside = (np.asarray(found.low) <= 0) & (np.asarray(found.high) >= 0)
        yield from (bool(held) for held in inside)


def sign_flip_errs(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """Sign-flip test at 5 %, without a difference."""
    for row in draw(rng, (SLOW if n > 16 else REPETITIONS, n)):
        yield statistics.sign_flip(row) < ALPHA


def holm_errs(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """Any of three candidates, all like the baseline, called different after Holm's correction."""
    for seeds in draw(rng, (REPETITIONS, 4, n)):
        p = [statistics.paired_t(candidate - seeds[0]).p for candidate in seeds[1:]]
        yield min(statistics.holm([value or 1.0 for value in p])) < ALPHA


def equal_errs(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """ "Equal within δ": the 95 % interval inside ±δ where the true difference is δ, twice the noise."""
    for row in 2.0 + draw(rng, (REPETITIONS, n)):
        found = statistics.mean_interval(row)
        yield found.low is not None and found.high is not None and found.low > -2.0 and found.high < 2.0


def schuirmann_errs(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """The p of two one-sided tests below 5 %, at the same boundary."""
    for row in 2.0 + draw(rng, (REPETITIONS, n)):
        yield (statistics.equivalence(row, 2.0) or 1.0) < ALPHA


def median_covers(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """Order-statistic interval of the median; ratios above the 90th percentile are censored, that is infinite."""
    median, worst = (float(v) for v in np.quantile(draw(np.random.default_rng(SEED), (1_000_000,)), [0.5, 0.9]))
    for row in draw(rng, (REPETITIONS, n)):
        found = statistics.median_interval(np.where(row > worst, np.inf, row))
        if found.low is None:
            return
        yield _covers(found, median)


def probability_covers(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """P(A < B) of arms one standard deviation apart, whose runs are independent."""
    return _probability_covers(draw, rng, n, paired=False)


def paired_probability_covers(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """The same, half of each arm's variance shared by its pair."""
    return _probability_covers(draw, rng, n, paired=True)


def _probability_covers(draw: Draw, rng: np.random.Generator, n: int, *, paired: bool) -> Iterator[bool]:
    def arm(rng: np.random.Generator, size: int, shared: Array) -> Array:
        return _arm(shared, draw(rng, (size,))) if paired else draw(rng, (size,))

    big, count = np.random.default_rng(SEED), 1_000_000
    a, b = (arm(big, count, big.standard_normal(count)) for _ in range(2))
    truth = float((a < b + 1.0).mean())
    for _ in range(REPETITIONS):
        shared = rng.standard_normal(n)
        a, b = (arm(rng, n, shared) for _ in range(2))
        yield _covers(statistics.probability_better(a, b + 1.0), truth)


def ranks_cover(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """Mean rank over three tasks of the middle one of three arms half a standard deviation apart."""
    for _ in range(SLOW):
        tasks = []
        for _ in range(3):
            shared = rng.standard_normal(n)
            tasks.append(np.stack([_arm(shared, draw(rng, (n,))) + 0.5 * k for k in range(3)], 1))
        yield _covers(mean_ranks(tasks)[1], 2.0)


def speed_up_covers(draw: Draw, rng: np.random.Generator, n: int) -> Iterator[bool]:
    """Speed-up of 1.5 at the middle of five run lengths; noise of a run 0.01, of its seed 0.02."""
    lengths = np.array([100, 200, 400, 800, 1600])
    for _ in range(SLOW):
        shared = 0.02 * draw(rng, (n, 1))
        baseline = 6 * lengths**-0.4 + 1.2 + shared + 0.01 * draw(rng, (n, 5))
        candidate = 6 * np.array([600.0]) ** -0.4 + 1.2 + shared + 0.01 * draw(rng, (n, 1))
        found = loss_curve.speed_ups(lengths.tolist(), baseline, candidate, candidate_lengths=[400])
        if found is not None:
            yield _covers(found[0].ratio, 1.5)


def planned_looks_err(draw: Draw, rng: np.random.Generator) -> float:
    """`confirm.seeds=auto`: any look at 5, 10 or 20 seeds below Pocock's level."""
    return _any_look(draw, rng, LOOKS, nominal_level())


def naive_looks_err(draw: Draw, rng: np.random.Generator) -> float:
    """The same looks at 5 % each."""
    return _any_look(draw, rng, LOOKS, ALPHA)


def every_look_errs(draw: Draw, rng: np.random.Generator) -> float:
    """A look at 5 % after every seed from the 5th to the 20th."""
    return _any_look(draw, rng, range(LOOKS[0], LOOKS[-1] + 1), ALPHA)


def _any_look(draw: Draw, rng: np.random.Generator, looks: Sequence[int], level: float) -> float:
    rows = draw(rng, (5 * REPETITIONS, LOOKS[-1]))
    erred = np.zeros(len(rows), dtype=bool)
    for n in looks:
        erred |= np.asarray(stats.ttest_1samp(rows[:, :n], 0.0, axis=1).pvalue) < level
    return float(erred.mean())


def _arm(shared: Array, own: Array) -> Array:
    return (shared + own) / math.sqrt(2)


def _covers(interval: statistics.Interval, truth: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high


# -- tables ------------------------------------------------------------------------------------------------------------

COVERAGE: Mapping[str, Callable[[Draw, np.random.Generator, int], Iterator[bool]]] = {
    "paired t interval": t_covers,
    "BCa interval": bca_covers,
    "median interval": median_covers,
    "P(A < B)": probability_covers,
    "P(A < B), pairs half alike": paired_probability_covers,
    "mean rank over 3 tasks": ranks_cover,
    "speed-up": speed_up_covers,
}
ERRORS: Mapping[str, Callable[[Draw, np.random.Generator, int], Iterator[bool]]] = {
    "paired t": t_errs,
    "sign-flip": sign_flip_errs,
    "Holm over 3": holm_errs,
    "equal within δ, by the 95 % interval": equal_errs,
    "equivalence, p < 0.05": schuirmann_errs,
}
LOOKING: Mapping[str, Callable[[Draw, np.random.Generator], float]] = {
    "`confirm.seeds=auto`": planned_looks_err,
    "the same looks, each at 5 %": naive_looks_err,
    "after every seed, each at 5 %": every_look_errs,
}


def measured() -> Iterator[str]:
    """The tables of the simulation."""
    yield (
        f"Written by `python docs/error_rates.py`: seed {SEED}, {REPETITIONS:,} repetitions a cell: a share of 95 "
        f"or 5 % is known to ± 1 point ({SLOW}, ± 2 points, for ranks, speed-ups and sign-flips of 20 seeds; "
        f"{5 * REPETITIONS:,}, ± 0.4, for looks). Noise has variance 1 and is "
        "normal, Student's t with 3 degrees of freedom (heavy tails), or log-normal with σ = 0.5 (skewed, 1.75) and "
        "σ = 1 (very skewed, 6.2). A cell lists n = " + ", ".join(map(str, SIZES)) + " seeds; – : no interval given."
    )
    yield "### Coverage of 95 % intervals, %"
    yield table_of(["interval", *NOISES], [[name, *_row(name, measure)] for name, measure in COVERAGE.items()])
    yield "### False positives at 5 %, %"
    yield table_of(["test", *NOISES], [[name, *_row(name, measure)] for name, measure in ERRORS.items()])
    yield "### Looking more than once, false positives, %"
    rows = [
        [name, *(f"{100 * measure(draw, rng_of(name, noise, 0)):.1f}" for noise, draw in NOISES.items())]
        for name, measure in LOOKING.items()
    ]
    level = 100 * nominal_level()
    yield table_of([f"looks at {', '.join(map(str, LOOKS))} seeds; Pocock's level is {level:.2f} %", *NOISES], rows)


def _row(name: str, measure: Callable[[Draw, np.random.Generator, int], Iterator[bool]]) -> Iterator[str]:
    for noise, draw in NOISES.items():
        shares = []
        for n in SIZES:
            found = list(measure(draw, rng_of(name, noise, n), n))
            shares.append(f"{100 * float(np.mean(found)):.1f}" if found else "–")
        print(f"{name}, {noise}: {', '.join(shares)}", file=sys.stderr, flush=True)
        yield " · ".join(shares)


def rng_of(*parts: object) -> np.random.Generator:
    """The random stream of a cell."""
    digest = hashlib.sha256("/".join(map(str, (SEED, *parts))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def real_runs() -> Iterator[str]:
    """What benchmarks/aa.py found."""
    result = json.loads(AA.read_text(encoding="utf-8"))
    yield (
        "Real runs, judged by the product's own code: `make bench ARGS=aa`, then `python docs/error_rates.py --runs` "
        f"({result['date']}, {result['seconds'] / 60:.0f} minutes on {result['environment']['cores']} cores)."
    )
    yield "### One setting against itself"
    yield "Seeds that no other comparison uses."
    fixed = [f for f in result["figures"] if OF_SEARCHES not in f["what"]]
    rows = [[f["what"], f["ours"], f"{f['value']:.1f} %", f"{f['low']:.1f} to {f['high']:.1f} %"] for f in fixed]
    yield table_of(["procedure", "found", "share", "Clopper–Pearson 95 %"], rows)
    by_plan: dict[str, dict[str, str]] = {}
    for f in result["figures"]:
        what, _, plan = f["what"].rpartition(": ")
        if OF_SEARCHES in plan:
            by_plan.setdefault(what, {})[plan] = f"{f['value']:.1f} ({f['low']:.1f} to {f['high']:.1f})"
    if not by_plan:
        return
    yield "### Whole searches"
    plans = list(dict.fromkeys(plan for cells in by_plan.values() for plan in cells))
    yield table_of(
        ["share, %", *plans], [[what, *(cells.get(plan, "–") for plan in plans)] for what, cells in by_plan.items()]
    )


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


# -- command -----------------------------------------------------------------------------------------------------------


def replaced(page: str, block: str, parts: Iterator[str]) -> str:
    """The page with what lies between the marks of a block written anew."""
    begin, end = f"<!-- {block}: begin, written by docs/error_rates.py -->", f"<!-- {block}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not rest or end not in rest:
        raise ValueError(f"docs/statistics.md has no block {block!r}")
    return before + "\n\n".join([begin, *parts, end]) + after


def stale() -> bool:
    """Whether the page differs from the A/A results that are kept."""
    page = PAGE.read_text(encoding="utf-8")
    return replaced(page, "real runs", real_runs()) != page


def main() -> int:
    """Write the tables, or with --runs the cheap one, or with --check say whether that is stale."""
    if "--check" in sys.argv[1:]:
        found = stale()
        sys.stdout.write("stale: docs/statistics.md\n" if found else "")
        return int(found)
    if "--runs" in sys.argv[1:]:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), "real runs", real_runs()), encoding="utf-8")
        return 0
    tables = list(measured())  # the page is read afterwards, for this takes minutes
    page = replaced(PAGE.read_text(encoding="utf-8"), "simulation", iter(tables))
    PAGE.write_text(replaced(page, "real runs", real_runs()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

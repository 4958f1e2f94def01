"""How often the same arm is called better or worse than itself: real runs, judged by the product's own code.

At a fixed setting: AdamW + cosine on Iris, both sides with the same numbers. Every comparison has seeds of its own
(initialisation and data order), and the two sides of a comparison share none: with shared seeds they would be bitwise
equal and prove nothing. Then of whole searches (benchmarks/aa_searches.py), with what the intervals of unlike arms
contain. Value: a share; the columns beside it: its 95 % interval, Clopper – Pearson, of pairs of sweeps a bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from benchmarks.aa_searches import DECLARED, share
from benchmarks.aa_searches import run as run_searches
from benchmarks.side_by_side import Figure
from benchmarks.trials import arm, built, program_of

from optsweep.inference.comparison import Finding, judge
from optsweep.inference.looks import AUTO, LOOKS, Level, Seeds, num_seeds
from optsweep.train.loop import train_all
from optsweep.train.trial import End, Trial

TASK, STEPS, LR = "iris", 40, 0.05
COMPARISONS = 500
LANES = 2_000
FIRST_SEED = 1_000_000  # far from the seeds of search and confirm

FIXED = 8


@dataclass(frozen=True)
class TestedSeeds:
    """One side of a comparison."""

    test_losses: Mapping[int, float]
    diverged_seeds: int = 0
    test_blocks: Mapping[int, Sequence[float]] = field(default_factory=dict)

    def first(self, seeds: int) -> TestedSeeds:
        """With the first seeds only."""
        return TestedSeeds({seed: self.test_losses[seed] for seed in range(seeds)})


def run(device: torch.device) -> Iterator[Figure]:
    """At a fixed setting, and of whole searches."""
    yield from _fixed(device)
    yield from run_searches(device)


def _fixed(device: torch.device) -> Iterator[Figure]:
    """A fixed number of seeds, and as many as `confirm.seeds=auto` asks for."""
    most = max(*LOOKS, FIXED)
    losses = _losses(device, 2 * COMPARISONS * most)
    pairs = []
    for k in range(COMPARISONS):
        mine = losses[2 * k * most : 2 * (k + 1) * most]
        pairs.append([TestedSeeds(dict(enumerate(mine[:most]))), TestedSeeds(dict(enumerate(mine[most:])))])
    plans: dict[Seeds, tuple[str, str]] = {FIXED: (f"{FIXED} seeds", "5 %"), AUTO: ("confirm.seeds=auto", "5 to 6 %")}
    for seeds, (what, expected) in plans.items():
        ended = [_compared(a, b, seeds, LOOKS[0] if seeds == AUTO else FIXED) for a, b in pairs]
        declared = [finding.outcome in DECLARED for finding, _ in ended]
        used = sum(held for _, held in ended) / COMPARISONS
        yield share(
            f"A/A on {TASK}, {what}: declared better or worse",
            declared,
            f"{sum(declared)} of {COMPARISONS:,} comparisons, {used:.1f} seeds on average",
            "5 % nominal",
            expected=expected,
        )


def _compared(candidate: TestedSeeds, baseline: TestedSeeds, asked: Seeds, held: int) -> tuple[Finding, int]:
    """The finding at the end of a comparison, and how many seeds it took: more are added as the planner adds them."""
    finding = judge([candidate.first(held)], baseline.first(held), Level.of(LOOKS if asked == AUTO else ()), None)[0]
    more = num_seeds(asked, held, lambda look: look <= held, lambda: finding.decided)
    return (finding, held) if more == held else _compared(candidate, baseline, asked, more)


def _losses(device: torch.device, count: int) -> list[float]:
    """Test losses of as many trials, each with a seed of its own."""
    b = built(arm(TASK, f"optimizer.lr={LR}", "trainer.rungs=1", f"trainer.log_every={STEPS}", steps=STEPS), device)
    program = replace(program_of(b), vmapped=True)
    found = []
    for first in range(0, count, LANES):
        seeds = range(FIRST_SEED + first, FIRST_SEED + min(first + LANES, count))
        for outcome in train_all(program, [Trial(b.space.hyper({}), seed, test=True) for seed in seeds]):
            if outcome.end is not End.FINISHED or outcome.test_loss is None:
                raise RuntimeError(f"a trial of {TASK} ended as {outcome.end}: {outcome.reason}")
            found.append(outcome.test_loss)
    return found

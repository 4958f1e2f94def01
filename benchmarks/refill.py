"""A stream of trials through lanes: trial-steps per CPU second, refilled as lanes get free and batch by batch, in turn.

`python benchmarks/refill.py [TASK [TRIALS [STEPS]]]`: a quarter of the trials is pruned half-way. Everything in the loop
counts: evaluation, points, and making the models.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.trials import arm, built, program_of
from optsweep.train.loop import train
from optsweep.train.program import Program
from optsweep.train.run import Silent
from optsweep.train.source import Listed
from optsweep.train.trial import Outcome, Trial

ROUNDS = 3


class _Counted(Silent):
    """Counts the steps of trials that have ended."""

    def __init__(self) -> None:
        self.steps = 0

    def on_end(self, key: int, outcome: Outcome) -> None:
        """Its steps."""
        self.steps += outcome.step


def rate(program: Program, streams: Sequence[Sequence[Trial]], lanes: int) -> float:
    """Trial-steps per CPU second over streams one after the other."""
    counted, begin = _Counted(), time.process_time()
    for stream in streams:
        train(program, Listed(stream), counted, lanes=lanes)
    return counted.steps / (time.process_time() - begin)


def main(task: str = "digits_mlp", trials: int = 200, steps: int = 600) -> None:
    """Print a line for each number of lanes."""
    torch.set_num_threads(1)
    b = built(arm(task, steps=steps), torch.device("cpu"))
    program = replace(program_of(b), vmapped=True)
    half = program.rung_steps()[len(program.rung_steps()) // 2]
    hyper = b.space.hyper({})
    stream = [Trial(hyper, seed, {half: 0.0} if seed % 4 == 0 else {}, test=True, key=seed) for seed in range(trials)]
    for lanes in (16, 64):
        batches = [stream[first : first + lanes] for first in range(0, trials, lanes)]
        rates = [(rate(program, [stream], lanes), rate(program, batches, lanes)) for _ in range(ROUNDS)]
        refilled, batched = (sorted(column)[ROUNDS // 2] for column in zip(*rates, strict=True))
        print(f"{task}, {lanes} lanes: refilled {refilled:,.0f} trial-steps per CPU second, in batches {batched:,.0f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:4]))

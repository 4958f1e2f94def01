"""What lanes are worth: trials · steps per second with K lanes, relative to one lane that runs the plain module."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from benchmarks.side_by_side import Figure, Round, compare, timed
from benchmarks.trials import arm, built, program_of, run_of, trial

from optsweep.train.program import Program
from optsweep.train.trial import Trial

LANES = (2, 4, 8, 16)
STEPS = {"digits_mlp": 30, "charlm": 2}
"""Steps per round."""

ROUNDS = 25
EXPECTED = {"digits_mlp": "above 1 on a CPU, far above on a GPU", "charlm": "0.7 – 0.9 on a CPU, above 1 on a GPU"}


def run(device: torch.device) -> Iterator[Figure]:
    """K lanes against one, for a small MLP and a small transformer."""
    for task, steps in STEPS.items():
        b = built(arm(task), device)
        one = _round(program_of(b), [trial(b)], steps, device)
        others = {
            str(k): _round(replace(program_of(b), vmapped=True), [trial(b, seed) for seed in range(k)], steps, device)
            for k in LANES
        }
        for key, ratio in compare(one, others, rounds=ROUNDS).items():
            k = int(key)
            gain = [k * r for r in (ratio.value, ratio.low, ratio.high)]
            yield Figure(
                what=f"{task}, {k} lanes: trials · steps per second",
                ours=f"{k * steps / ratio.theirs:,.0f} per second",
                against=f"one lane: {steps / ratio.ours:,.0f} per second",
                value=gain[0],
                low=gain[1],
                high=gain[2],
                rounds=ratio.rounds,
                expected=EXPECTED[task],
                at_least=True,
            )


def _round(program: Program, trials: list[Trial], steps: int, device: torch.device) -> Round:
    run = run_of(program, trials)
    return lambda: timed(lambda: run.advance(run.tick + steps), device)

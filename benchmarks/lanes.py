"""What lanes are worth: trials · steps per second of one process, on a CPU one core, with K trials training at once.

One lane is the plain module, several are vmapped. A round is some steps of a trial in the middle, without evaluations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from benchmarks.side_by_side import Figure, Round, in_turn, spread, timed
from benchmarks.trials import arm, built, program_of, run_of, trial

from optsweep.train.program import Program
from optsweep.train.trial import Trial

LANES = (1, 2, 4, 8, 16, 32, 64)
LANES_OF_A_GPU = (*LANES, 128, 256)

STEPS = {"iris_mlp": 30, "digits_mlp": 30, "charlm_tiny": 2, "mnist5k_cnn": 1}
"""Steps per round, by task."""

ROUNDS = 15
EXPECTED = {
    "iris_mlp": "grows with K",
    "digits_mlp": "grows to K = 16",
    "charlm_tiny": "below one lane on a CPU",
    "mnist5k_cnn": "as one lane on a CPU",
}
TARGETS = {("digits_mlp", 64): 8000.0}


def run(device: torch.device) -> Iterator[Figure]:
    """Each task at each number of lanes."""
    lanes = LANES if device.type == "cpu" else LANES_OF_A_GPU
    for task, steps in STEPS.items():
        b = built(arm(task), device)
        program = program_of(b)
        rounds = [
            _round(replace(program, vmapped=k > 1), [trial(b, seed) for seed in range(k)], steps, device) for k in lanes
        ]
        samples = in_turn(rounds, rounds=ROUNDS)
        for k, seconds in zip(lanes, samples, strict=True):
            low, rate, high = spread([k * steps / s for s in seconds])
            gain = spread([k * one / s for one, s in zip(samples[0], seconds, strict=True)])[1]
            yield Figure(
                what=f"{task}, {k} lane{'s' if k > 1 else ''}",
                ours=f"{gain:.2f} × one lane",
                against="trials · steps per second" + (" and core" if device.type == "cpu" else ""),
                value=rate,
                low=low,
                high=high,
                rounds=ROUNDS,
                expected=EXPECTED[task] if k > 1 else "",
                target=TARGETS.get((task, k)) if device.type == "cpu" else None,
                unit=" /s",
                at_least=True,
            )


def _round(program: Program, trials: list[Trial], steps: int, device: torch.device) -> Round:
    run = run_of(program, trials)
    return lambda: timed(lambda: run.advance(run.tick + steps), device)

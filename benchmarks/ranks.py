"""What a step costs one process, and two ranks: gradients, their sum, the update; and what sharding it would save.

    PYTHONPATH=tests:. python benchmarks/ranks.py

Two processes of one thread each on this machine, which meet by gloo. "half an update" is that of half the matrices, by
their size, which is what a rank would do of a sharded one; it then has to have the other half's new parameters: a row
of half the size from each rank. docs/design.md has the output.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from arms import arm_with
from optsweep.build.assemble import build_arm
from optsweep.optim.iterate import Past
from optsweep.optim.updater import Updater
from optsweep.tasks.base import Split
from optsweep.tasks.data import Stretch
from optsweep.train.program import Program
from optsweep.train.ranks import part_of
from optsweep.train.run import Run, Silent
from optsweep.train.steps import backward_of
from optsweep.train.trial import Trial

RANKS = 2
ROUNDS, STEPS = 5, 10  # steps: a refresh of SOAP's among them
CASES: Mapping[str, Mapping[str, Any]] = {
    "digits_mlp, width 256, batch 256": {"task": "digits_mlp", "task__width": 256, "task__batch_size": 256},
    "charlm (0.1M), batch 16": {"task": "charlm"},
    "charlm_1m, batch 32": {"task": "charlm_1m", "task__batch_size": 32},
}


def program_of(optimizer: str, case: Mapping[str, Any]) -> tuple[Program, Trial]:
    values = {key: value for key, value in case.items() if key != "task"}
    arm = arm_with({"task": case["task"], "optimizer": optimizer}, trainer__device="cpu", trainer__lanes=1, **values)
    built = build_arm(arm)
    program = built.program
    assert isinstance(program, Program)
    return program, Trial(built.space.hyper(built.space.first), seed=0)


def updating(update: Updater, trial: Trial, size: int) -> Callable[[int], None]:
    """Takes an update of a row of this size."""
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(1, size, generator=generator) * 0.02
    grads = torch.randn(1, size, generator=generator) * 1e-3
    state = update.init(params)
    numbers = update.coefficients(trial.hyper, np.ones(1), Past().after(np.ones(20)))
    c = {name: float(values[0]) for name, values in numbers.items()}
    return lambda tick: update.step(params, grads, state, c, tick)


def half_of(program: Program) -> Updater:
    """The update of parameters that hold half of all numbers, the largest dealt out first."""
    shapes = dict(program.model(0).named_parameters())
    halves: list[list[str]] = [[], []]
    for slot in sorted(program.layout.slots, key=lambda slot: -prod(shapes[slot.name].shape)):
        min(halves, key=lambda names: sum(shapes[name].numel() for name in names)).append(slot.name)
    return program.build_update(program.layout_without(halves[1]))


def milliseconds(step: Callable[[int], object]) -> float:
    """Of one step, the median of rounds."""
    found = []
    for number in range(ROUNDS + 1):
        dist.barrier()
        began = time.perf_counter()
        for tick in range(number * STEPS, (number + 1) * STEPS):
            step(tick)
        found.append(1e3 * (time.perf_counter() - began) / STEPS)
    return statistics.median(found[1:])


def measured(rank: int, optimizer: str, case: Mapping[str, Any]) -> Mapping[str, float]:
    """Milliseconds by what is done, as this rank has them."""
    program, trial = program_of(optimizer, case)
    run = Run(program, [trial], Silent())
    batch = next(program.task.data(Split.TRAIN).training([Stretch(0, 0, 1)], program.batch_size, 1, program.device))
    backward = backward_of(program, run.arena, ())
    share = part_of(batch, rank, RANKS)
    whole = updating(program.build_update(program.layout), trial, program.layout.size)
    half, half_update = torch.zeros(program.layout.size // 2), half_of(program)
    parts = [torch.zeros_like(half) for _ in range(RANKS)]
    alone: Callable[[int], object] = (lambda tick: backward(iter([batch]))) if rank == 0 else (lambda tick: None)
    return {
        "gradient": milliseconds(alone),
        "half a batch's": milliseconds(lambda tick: backward(iter([share]))),
        "sum": milliseconds(lambda tick: dist.all_reduce(run.arena.grads)),
        "update": milliseconds(whole),
        "half an update": milliseconds(updating(half_update, trial, half_update.layout.size)),
        "gather": milliseconds(lambda tick: dist.all_gather(parts, half)),
    }


def work(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(meeting, RANKS), rank=rank, world_size=RANKS)
    for title, case in CASES.items():
        for optimizer in ("adamw", "muon", "soap"):
            found = measured(rank, optimizer, case)
            if rank:
                continue
            one = found["gradient"] + found["update"]
            two = found["half a batch's"] + found["sum"] + found["update"]
            sharded = two - found["update"] + found["half an update"] + found["gather"]
            shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            print(f"{title}, {optimizer}: ms of {shown}", flush=True)
            print(f"    one process {one:.2f}, two ranks {two:.2f}, with the update sharded {sharded:.2f}", flush=True)
    dist.barrier()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (str(Path(folder) / "meeting"),), nprocs=RANKS)


if __name__ == "__main__":
    main()

"""On a GPU: whole trials in lanes and one large model against loops by hand, and how busy the device is.

Trials per hour are those of whole trials at the task's own length: models built, trained, evaluated at every rung, the
test split at the end; without MLflow. The loop by hand runs one after the other: torch's fused AdamW, samples on the
device, a validation split evaluated as one batch, nothing fetched between two rungs. The large model is one lane of
charlm_124m in bf16 against the same model through torch.compile with torch's fused AdamW. Busy is the time of all
kernels by torch's profiler, of the time between two rungs without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from benchmarks.side_by_side import Figure, Round, SkippedError, compare, timed
from benchmarks.trials import arm, built, program_of, run_of, trial
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from optsweep.garbage import look_seldom
from optsweep.tasks.base import Split
from optsweep.train.loop import train_all
from optsweep.train.program import Program
from optsweep.train.run import Run

LANES = {
    "digits_mlp": (64, 256, 1024),
    "iris_mlp": (64, 256, 1024),
    "mnist5k_cnn": (64, 256),
    "charlm_tiny": (64, 256),
}
MANY = 256
"""Lanes whose gain has a target, and with which the device should be busy."""
ROUNDS = 3
GAIN, BUSY = 20.0, 90.0
STEPS, LARGE_STEPS = 50, 20
"""Between two rungs."""

BY_HAND = "one by one by hand, torch.optim.AdamW(fused=True)"


def run(device: torch.device) -> Iterator[Figure]:
    """All of it; the large model first, as it needs the memory."""
    if device.type != "cuda":
        raise SkippedError(f"a CUDA device is needed, this is {device.type}")
    look_seldom()  # as a worker does
    yield from _large(device)
    torch.cuda.empty_cache()
    for task, lanes in LANES.items():
        yield from _trials(task, lanes, device)


# -- trials per hour -------------------------------------------------------------------------------------------------


def _trials(task: str, lanes: tuple[int, ...], device: torch.device) -> Iterator[Figure]:
    """One lane and several against the loop by hand; then how busy the device is."""
    b = built(arm(task, "trainer.steps=null"), device)
    program, seeds = program_of(b), iter(range(10**6))

    def ours(count: int) -> Round:
        p = replace(program, vmapped=count > 1)
        trials = [replace(trial(b, seed), test=True) for seed in range(count)]
        return lambda: timed(lambda: train_all(p, trials), device) / count

    one = _by_hand(program, trial(b).hyper["lr"], device)
    others = {str(count): ours(count) for count in (1, *lanes)}
    for key, ratio in compare(lambda: timed(lambda: one(next(seeds)), device), others, rounds=ROUNDS, warmup=1).items():
        count = int(key)
        yield Figure(
            what=f"{task}, {count} {'lane' if count == 1 else 'lanes'}: trials per hour",
            ours=f"{3600 / ratio.theirs:,.0f} per hour",
            against=f"{BY_HAND}: {3600 / ratio.ours:,.0f} per hour",
            value=ratio.value,
            low=ratio.low,
            high=ratio.high,
            rounds=ratio.rounds,
            expected="50" if count > 1 else "above 1",
            target=GAIN if count == MANY else None,
            at_least=True,
        )
    many = run_of(replace(program_of(built(arm(task), device)), vmapped=True), [trial(b, k) for k in range(MANY)])
    yield _busy(f"{task}, {MANY} lanes", many, STEPS, device)


def _by_hand(program: Program, lr: float, device: torch.device) -> Callable[[int], None]:
    """The loop that a careful practitioner writes, of a whole trial with this seed."""
    task, rungs = program.task, set(program.rung_steps())
    multipliers = program.schedule.start(program.num_steps)
    multipliers.extend(program.num_steps)
    lrs = (lr * multipliers.values[: program.num_steps]).tolist()

    @torch.no_grad()
    def loss_on(module: nn.Module, split: Split) -> float:
        module.eval()
        total = torch.zeros((), device=device)
        for indices in task.eval_indices(split, 4096):
            inputs, targets = task.batch(split, torch.from_numpy(indices).to(device))
            total += task.loss(module(inputs), targets) * len(indices)
        module.train()
        return float(total)

    def train(seed: int) -> None:
        module = program.model(seed).to(device)
        optimizer = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.01, fused=True)
        indices = torch.from_numpy(task.train_indices(seed, 0, program.num_steps, program.batch_size)).to(device)
        losses: list[Tensor] = []
        loss_on(module, Split.VAL)
        for step, batch in enumerate(indices, 1):
            for group in optimizer.param_groups:
                group["lr"] = lrs[step - 1]
            inputs, targets = task.batch(Split.TRAIN, batch)
            loss = task.loss(module(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
            if step in rungs:
                loss_on(module, Split.VAL)
                torch.stack(losses).cpu()
        loss_on(module, Split.TEST)

    return train


# -- one large model ---------------------------------------------------------------------------------------------------


def _large(device: torch.device) -> Iterator[Figure]:
    """charlm_124m, one lane, in bf16."""
    b = built(arm("charlm_124m", "trainer.precision=bf16"), device)
    program = program_of(b)
    ours = run_of(program, [trial(b)])
    ratio = compare(
        lambda: timed(lambda: ours.advance(ours.tick + LARGE_STEPS), device),
        {"": _compiled_by_hand(program, device)},
        rounds=5,
        warmup=1,
    )[""]
    against = "by hand, torch.compile, torch.optim.AdamW(fused=True)"
    yield ratio.figure("charlm_124m, one lane, bf16", against, steps=LARGE_STEPS, expected="1.00", target=1.0)
    yield _busy("charlm_124m, one lane", ours, LARGE_STEPS, device)


def _compiled_by_hand(program: Program, device: torch.device) -> Round:
    task, module = program.task, program.model(0).to(device)
    compiled = torch.compile(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    first = 0

    def steps() -> None:
        nonlocal first
        indices = torch.from_numpy(task.train_indices(0, first, LARGE_STEPS, program.batch_size)).to(device)
        first += LARGE_STEPS
        for batch in indices:
            inputs, targets = task.batch(Split.TRAIN, batch)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = task.loss(compiled(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return lambda: timed(steps, device)


def _busy(what: str, run: Run, steps: int, device: torch.device) -> Figure:
    """The share of the time between two rungs in which kernels run."""
    shares, kernels, walls = [], 0.0, 0.0
    for _ in range(ROUNDS):
        run.advance(run.tick + steps)
        wall = timed(lambda: run.advance(run.tick + steps), device)
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            run.advance(run.tick + steps)
            torch.cuda.synchronize(device)
        kernels = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6
        walls = wall
        shares.append(100 * kernels / wall)
    middle = sorted(shares)[len(shares) // 2]
    return Figure(
        what=f"{what}: device busy between two rungs",
        ours=f"{1000 * kernels / steps:.3f} ms of kernels a step",
        against=f"{1000 * walls / steps:.3f} ms a step",
        value=middle,
        low=min(shares),
        high=max(shares),
        rounds=ROUNDS,
        expected="above 90",
        target=BUSY,
        unit="%",
        at_least=True,
    )

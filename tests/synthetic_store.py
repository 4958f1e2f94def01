"""Fills an MLflow store with a made-up sweep, through the writers that real sweeps use.

    python tests/integration/synthetic_store.py sqlite:////tmp/store/mlflow.db demo --trials 1000

Tests look at reports of it, benchmarks time them. Nothing is trained: losses come from a formula and a seed.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hand_sweeps import FACTS
from optsweep.tracking.delivery import AtOnce
from optsweep.tracking.names import Status
from optsweep.tracking.schema import (
    ArmSheet,
    ArmTitle,
    Chosen,
    ConfirmTerms,
    Environment,
    RangeRecord,
    ScheduleTrace,
    SearchTerms,
    Session,
    SweepPlan,
    SweepSheet,
    Timing,
    TrialHead,
)
from optsweep.tracking.trial_log import TrialLog
from optsweep.tracking.writer import Tracker
from optsweep.train.trial import End, Outcome, Phase, Point, Rung


@dataclass(frozen=True)
class FakeArm:
    """An arm whose loss is known: `final` at its best LR, worse by `curvature` per squared decade from it."""

    name: str
    label: str
    choices: Mapping[str, str]
    final: float = 2.0
    best_lr: float = 3e-3
    curvature: float = 0.3
    noise: float = 0.01
    diverges_above: float = math.inf
    suggested: tuple[float, float] = (1e-4, 1e-2)
    searched: tuple[float, float] | None = None  # after extension
    decay: tuple[float, float] | None = (1e-3, 1.0)
    bracketed: tuple[bool, bool] = (True, True)
    ms_per_step: float | None = 2.0
    state_bytes: int = 2_000_000
    decays_late: bool = True
    confirm_status: Sequence[Status] = ()  # by seed index; finished where it ends
    confirm_seeds: int | None = None  # fewer than planned: the sweep is still running
    chosen: bool = True
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def arm(task: str, optimizer: str, schedule: str, **known: Any) -> FakeArm:
    """A fake arm whose names follow from its choices."""
    choices = {
        "task": task,
        "optimizer": optimizer,
        "schedule": schedule,
        "warmup": "linear",
        "weight_decay": "decoupled",
    }
    choices.update(known.pop("choices", {}))
    extra = "".join(f",{key}={value}" for key, value in choices.items() if key.startswith("trainer."))
    name = f"{task},{optimizer},{schedule}{extra}"
    return FakeArm(name=known.pop("name", name), label=f"{optimizer} + {schedule}", choices=choices, **known)


DEFAULT = (
    arm("charlm", "adamw", "cosine", final=2.05, best_lr=2e-2, searched=(1e-4, 9e-2), diverges_above=8e-2),
    arm(
        "charlm",
        "soap",
        "schedule_free",
        final=1.93,
        best_lr=3e-2,
        suggested=(1e-4, 2e-3),
        searched=(1e-4, 5e-2),
        diverges_above=4.5e-2,
        bracketed=(True, False),
        ms_per_step=3.1,
        state_bytes=4_200_000,
        decays_late=False,
        warnings=("SOAP's learning rate has no range in the deck; the range is EPFL's.",),
    ),
)


ENVIRONMENT = Environment(
    python="3.11.9",
    platform="Linux-6.1-x86_64",
    processor="A processor of 2 cores",
    cores=2,
    memory_bytes=8 * 2**30,
    device="cpu",
    packages={"torch": "2.13.0", "mlflow": "3.17.2", "optuna": "5.0.0", "hydra-core": "1.3.8"},
    git_commit="0123456789abcdef0123456789abcdef01234567",
)


@dataclass(frozen=True)
class Size:
    """How much of a sweep is made up."""

    trials: int
    seeds: int
    rungs: int
    num_steps: int
    prune_every: int


def fill(
    tracking_uri: str,
    sweep: str,
    arms: Sequence[FakeArm] = DEFAULT,
    *,
    trials: int = 16,
    seeds: int = 8,
    rungs: int = 12,
    num_steps: int = 400,
    prune_every: int = 5,
    baseline: str | None = None,
    absent: Sequence[str] = (),
) -> str:
    """Write the sweep: `trials` search trials and `seeds` confirm trials per arm. Returns the experiment's id."""
    tracker = Tracker(tracking_uri, sweep)
    titles = (*(ArmTitle(a.name, a.label) for a in arms), *(ArmTitle(name, name) for name in absent))
    plan = SweepPlan(
        baseline=baseline or arms[0].name,
        arms=titles,
        search=SearchTerms(trials=trials, reruns=0.125, lag=4, sampler="tpe", pruner="median"),
        confirm=ConfirmTerms(seeds=seeds),
    )
    command = f"optsweep -cn soap_schedulefree_vs_adamw_cosine -m 'sweep.name={sweep}'"
    session = Session(start=1.7e9, end=1.7e9 + 402.5, workers=2, train_seconds=705.0, trials=48)
    tracker.write_sheet(tracker.sweep_run(), SweepSheet(plan, ENVIRONMENT, command, (session,)))
    for place, a in enumerate(arms):
        _fill_arm(tracker, a, np.random.default_rng([7, place]), Size(trials, seeds, rungs, num_steps, prune_every))
    return tracker.experiment_id


def sheet_of(a: FakeArm, size: Size) -> ArmSheet:
    """What the planner would have left of the arm."""
    low, high = a.searched or a.suggested
    space = {"lr": RangeRecord(*a.suggested, True, "EPFL, arXiv 2509.01440")}
    params = {"lr": float(np.clip(a.best_lr, low, high))}
    if a.decay:
        space["weight_decay"] = RangeRecord(*a.decay, True, "ranges.md, AlgoPerf")
        params["weight_decay"] = math.sqrt(a.decay[0] * a.decay[1])
    steps = int(a.choices.get("trainer.steps", size.num_steps))
    averaged = a.choices["schedule"] == "schedule_free"
    facts = {"num_steps": steps, "samples_seen": steps * FACTS.batch_size, "averaged": averaged}
    slots = (max(size.trials - 2, 0), max(size.trials - 1, 0))
    sides = dict(zip(("low", "high"), a.bracketed, strict=True))
    ms = a.ms_per_step
    return ArmSheet(
        name=a.name,
        label=a.label,
        choices=a.choices,
        fingerprint=f"{zlib.crc32(a.name.encode()):08x}",
        space=space,
        fixed={"warmup_steps": 40.0},
        facts=replace(FACTS, **{**facts, **a.facts}),
        schedule=ScheduleTrace(np.arange(steps), np.array([_multiplier(a, step / steps) for step in range(steps)])),
        warnings=tuple(a.warnings),
        chosen=Chosen(params, a.final, 2, {"lr": sides}, {"lr": (low, high)}, slots),
        timing=Timing(ms, 0.97 * ms, 1.05 * ms, 50) if ms else None,
    )


def _fill_arm(tracker: Tracker, a: FakeArm, rng: np.random.Generator, size: Size) -> None:
    sheet = sheet_of(a, size)
    chosen, facts = sheet.chosen, sheet.facts
    assert chosen is not None
    assert facts is not None
    parent = tracker.arm_run(a.name, a.label)
    tracker.write_sheet(parent, sheet if a.chosen else replace(sheet, chosen=None))
    log_low, log_high = np.log10(chosen.searched["lr"])
    made = _Maker(tracker, parent, a, rng, size.rungs, facts.num_steps)
    for slot in range(size.trials):
        last = slot >= size.trials - 2
        params = dict(chosen.params) if last else {"lr": float(10 ** rng.uniform(log_low, log_high))}
        if a.decay and not last:
            params["weight_decay"] = float(10 ** rng.uniform(*np.log10(a.decay)))
        status = Status.FINISHED
        if params["lr"] > a.diverges_above:
            status = Status.DIVERGED
        elif size.prune_every and slot % size.prune_every == size.prune_every - 1 and not last:
            status = Status.PRUNED
        early = slot < size.trials // 2
        origin = "rerun" if last else "quasi-random" if early else "bracket" if slot % 3 == 0 else "model"
        made.trial(TrialHead(a.name, Phase.SEARCH, slot, 0, origin, params), status)
    for seed in range(size.seeds if a.confirm_seeds is None else a.confirm_seeds):
        status = a.confirm_status[seed] if seed < len(a.confirm_status) else Status.FINISHED
        made.trial(TrialHead(a.name, Phase.CONFIRM, seed, seed, "chosen", chosen.params), status)


@dataclass(frozen=True)
class _Maker:
    """Writes the trials of one arm."""

    tracker: Tracker
    parent: str
    arm: FakeArm
    rng: np.random.Generator
    rungs: int
    num_steps: int

    def trial(self, head: TrialHead, status: Status) -> None:
        """A trial as its worker would have written it, up to where it ended."""
        a, num_steps = self.arm, self.num_steps
        head = replace(head, label=a.label)
        log = TrialLog(AtOnce(self.tracker), self.parent, head.run_name, head, FACTS.metric)
        # seeds are shared by all arms, so part of the noise is too: what pairing is for
        shared = float(np.random.default_rng([3, head.seed]).normal()) * 3 * a.noise
        confirm = head.phase is Phase.CONFIRM
        hyper = {key: float(value) for key, value in head.hyper.items() if isinstance(value, (int, float))}
        rungs = self._curve(hyper, status, (shared if confirm else 0.0) + float(self.rng.normal()) * a.noise)
        for rung in rungs:
            log.rung(rung)
        if status is Status.RUNNING:
            log.write()
            return
        if status is Status.CRASHED:
            log.crash("OutOfMemoryError: tried to allocate <2 GiB>")
            return
        final = rungs[-1]
        tested = confirm and status is Status.FINISHED
        outcome = Outcome(
            end=End(status.value),
            step=final.step,
            val_loss=final.val_loss,
            val_score=final.val_score,
            test_loss=final.val_loss + 0.02 + float(self.rng.normal()) * a.noise / 2 if tested else None,
            test_score=0.9 - final.val_loss / 10 if tested else None,
            train_seconds=round(num_steps * 0.0021, 3),
            state_bytes=a.state_bytes,
            reason=f"training loss was not finite at step {num_steps // 3}" if status is Status.DIVERGED else "",
        )
        log.end(outcome)

    def _curve(self, params: Mapping[str, float], status: Status, noise: float) -> list[Rung]:
        a, num_steps = self.arm, self.num_steps
        final = a.final + a.curvature * math.log10(params["lr"] / a.best_lr) ** 2 + noise
        if "weight_decay" in params:
            final += 0.02 * (math.log10(params["weight_decay"]) + 1.5) ** 2
        done = {Status.DIVERGED: 0.34, Status.PRUNED: 0.5, Status.CRASHED: 0.2, Status.RUNNING: 0.4}.get(status, 1.0)
        found = []
        for share in np.linspace(0, 1, self.rungs + 1)[1:]:
            if share > done + 1e-9:
                break
            power = 0.55 if a.decays_late else 0.25
            loss = final + 2.2 * (1 - share**power) + 0.01 * math.sin(20 * share + noise * 400)
            train = loss - 0.05 * share + 0.02 * math.sin(37 * share)
            found.append(self._rung(round(share * num_steps), loss, train, params["lr"] * _multiplier(a, share)))
        if status is Status.DIVERGED:
            found.append(self._rung(num_steps // 3, math.nan, math.nan, params["lr"]))
        return found

    def _rung(self, step: int, val_loss: float, train_loss: float, lr: float) -> Rung:
        point = Point(step, train_loss, lr, grad_norm=0.5, update_ratio=1e-3)
        return Rung(
            step=step,
            val_loss=val_loss,
            val_score=0.9 - val_loss / 10,
            points=(point,),
            ms_per_step=2.1,
            peak_bytes=300_000_000,
            train_seconds=round(step * 0.0021, 3),
        )


def _multiplier(a: FakeArm, share: float) -> float:
    """Of the peak learning rate, at a share of the run."""
    return 0.5 * (1 + math.cos(math.pi * share)) if a.decays_late else 1.0


def main() -> None:
    """Fill a store from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri")
    parser.add_argument("sweep")
    parser.add_argument("--trials", type=int, default=16, help="search trials, all arms together")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    fill(options.uri, options.sweep, trials=options.trials // len(DEFAULT), seeds=options.seeds)


if __name__ == "__main__":
    main()

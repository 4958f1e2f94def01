"""Sweeps made by hand, whose arms have known test losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from optsweep.report.across.findings import Across, across
from optsweep.report.comparison import compare
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord, TrialRecord
from optsweep.tracking.schema import (
    ArmFacts,
    ArmTitle,
    Chosen,
    ConfirmTerms,
    Environment,
    RangeRecord,
    SweepPlan,
    Timing,
)
from optsweep.train.trial import Phase

FACTS = ArmFacts(
    num_parameters=123_456,
    num_steps=400,
    batch_size=32,
    samples_seen=400 * 32,
    metric="accuracy",
    higher_is_better=True,
    loss_unit="nats",
    chance_loss=None,
    target_loss=None,
    warmup_steps=40,
    device="cpu",
    precision="fp32",
    lanes=1,
    threads=1,
    data="d",
)
NOISE = (0.010, -0.012, 0.004, -0.006, 0.009, -0.005)


def trial(arm: str, seed: int, loss: float | None, curve: Curve | None) -> TrialRecord:
    metrics = {} if loss is None else {names.TEST_LOSS: loss, names.VAL_LOSS: loss}
    return TrialRecord(
        run_id=f"{arm}-{seed}",
        arm=arm,
        phase=Phase.CONFIRM,
        slot=seed,
        seed=seed,
        origin="chosen",
        status=Status.DIVERGED if loss is None else Status.FINISHED,
        error="",
        params={"lr": "0.001"},
        metrics=metrics,
        train_seconds=1.0,
        state_bytes=1000.0,
        lanes=1,
        curves={} if curve is None else {names.VAL_LOSS: curve},
    )


def arm(
    optimizer: str,
    losses: Sequence[float | None],
    *,
    task: str = "charlm",
    steps: int = 400,
    axis: bool = False,
    reached: Mapping[int, float] | None = None,
    ms: float | None = 2.0,
    **known: Any,
) -> ArmRecord:
    """An arm with these test losses; None diverged. `reached`: its validation curve, by step."""
    name = f"{task},{optimizer},{steps}"
    held = reached or {steps: next((loss for loss in losses if loss is not None), 9.0)}
    curve = Curve(np.array(list(held)), np.array(list(held.values()), dtype=np.float64))
    schedule = known.pop("schedule", "cosine")
    choices = {"task": task, "optimizer": optimizer, "schedule": schedule}
    facts = {"num_steps": steps, "averaged": schedule == "schedule_free", **known.pop("facts", {})}
    return ArmRecord(
        name=name,
        label=f"{task} + {optimizer}" + (f" + steps={steps}" if axis else ""),
        run_id=f"run-{name}",
        choices=choices | ({"trainer.steps": str(steps)} if axis else {}),
        fingerprint="f",
        space={"lr": RangeRecord(1e-4, 1e-3, True, "deck")},
        fixed={},
        chosen=Chosen({"lr": 5e-4}, 2.0, 1, {"lr": {"low": True, "high": known.pop("bracketed", True)}}, {}, ()),
        timing=None if ms is None else Timing(ms, ms, ms, 50),
        facts=asdict(replace(FACTS, **facts)),
        warnings=(),
        trials=tuple(trial(name, seed, loss, curve) for seed, loss in enumerate(losses)),
    )


def sweep(*arms: ArmRecord, name: str = "demo", baseline: str | None = None) -> SweepRecord:
    titles = tuple(ArmTitle(a.name, a.label) for a in arms)
    plan = SweepPlan(baseline=baseline or arms[0].name, arms=titles, confirm=ConfirmTerms(seeds=6))
    return SweepRecord(name, "1", "sweep-run", plan, Environment(), "", (), arms)


def seeds(mean: float, noise: Sequence[float] = NOISE) -> list[float | None]:
    return [mean + value for value in noise]


def found(*sweeps: SweepRecord) -> Across:
    return across(compare(sweeps))


def by_length(optimizer: str, losses: Mapping[int, float], **known: Any) -> list[ArmRecord]:
    return [arm(optimizer, seeds(loss), steps=steps, axis=True, **known) for steps, loss in losses.items()]


HALVING = {100: 4.0, 200: 3.0, 400: 2.0}  # one nat per doubling

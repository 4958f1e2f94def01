"""Arms and sweeps made by hand, and the verdict on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optsweep.report.across.findings import across
from optsweep.report.comparison import Conclusion, compare
from optsweep.report.page import render
from optsweep.report.verdict import Verdict, verdict
from optsweep.tracking import names
from optsweep.tracking.codec import from_json
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, SweepRecord, TrialRecord
from optsweep.tracking.schema import Chosen, Environment, RangeRecord, SweepPlan, Timing
from optsweep.train.trial import Phase

BASE = [2.00, 2.05, 1.95, 2.02, 1.98, 2.01, 2.03, 1.96]
JITTER = [0.010, -0.012, 0.004, -0.006, 0.009, -0.003, 0.001, -0.004]


def trial(arm: str, seed: int, test: float | None, status: Status = Status.FINISHED, **known: Any) -> TrialRecord:
    metrics = {} if test is None else {names.TEST_LOSS: test, names.VAL_LOSS: test, names.test_metric("accuracy"): 0.5}
    fields: dict[str, Any] = {
        "run_id": f"{arm}-{seed}",
        "phase": Phase.CONFIRM,
        "slot": seed,
        "origin": "chosen",
        "error": "",
        "params": {"lr": "0.001"},
        "train_seconds": 1.0,
        "state_bytes": 1000.0,
        "lanes": 1,
    }
    return TrialRecord(arm=arm, seed=seed, status=status, metrics=metrics, **{**fields, **known})


def arm(name: str, tests: Sequence[float | None] = (), **known: Any) -> ArmRecord:
    """An arm whose confirm trials have these test losses; None and infinity diverged."""
    trials = [
        trial(name, seed, loss)
        if loss is not None and math.isfinite(loss)
        else trial(name, seed, None, Status.DIVERGED)
        for seed, loss in enumerate(tests)
    ]
    fields: dict[str, Any] = {
        "label": name,
        "run_id": f"run-{name}",
        "choices": {"task": "charlm", "optimizer": name},
        "fingerprint": "f",
        "space": {"lr": RangeRecord(1e-4, 1e-3, True, "deck")},
        "fixed": {},
        "chosen": Chosen({"lr": 5e-4}, 2.0, 1, {"lr": {"low": True, "high": True}}, {"lr": (1e-4, 1e-3)}, (0,)),
        "timing": Timing(2.0, 1.9, 2.1, 50),
        "facts": {"metric": "accuracy", "loss_unit": "nats", "num_steps": 400},
        "warnings": (),
        "trials": tuple(trials),
    }
    return ArmRecord(name=name, **{**fields, **known})


def sweep(*arms: ArmRecord, seeds: int | None = None, **plan: Any) -> SweepRecord:
    planned = max((len(a.of(Phase.CONFIRM)) for a in arms), default=0) if seeds is None else seeds
    whole: Mapping[str, Any] = {
        "arms": [{"name": a.name, "label": a.label} for a in arms],
        "baseline": arms[0].name if arms else "",
        "confirm": {"seeds": planned},
        **plan,
    }
    return SweepRecord("demo", "1", "sweep-run", from_json(SweepPlan, whole), Environment(), "", (), arms)


def said(*arms: ArmRecord, **plan: Any) -> Verdict:
    (group,) = compare([sweep(*arms, **plan)])
    return verdict(group)


def page(v: Verdict) -> str:
    """The report's page, without figures."""
    return render([v.group.sweep], [v], [[]], across([v.group]), [], "", "sqlite:///store.db")


def shifted(by: float) -> list[float]:
    return [value + by + jitter for value, jitter in zip(BASE, JITTER, strict=True)]


def outcome(v: Verdict) -> Conclusion:
    return v.group.comparisons[0].outcome

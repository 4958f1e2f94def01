"""Trials, arms and groups made by hand, for figures of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optsweep.report.comparison import Group, compare
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord, TrialRecord
from optsweep.tracking.schema import Chosen, Environment, RangeRecord, ScheduleTrace, SweepPlan
from optsweep.train.trial import Phase

HOSTILE = "_<b>&\"$\\frac{1}{2}$_λ→∞'"
FINISHED, DIVERGED, PRUNED = Status.FINISHED, Status.DIVERGED, Status.PRUNED


def trial(
    phase: Phase,
    slot: int,
    loss: float | None,
    status: Status = FINISHED,
    params: Mapping[str, float] | None = None,
    **known: Any,
) -> TrialRecord:
    metrics = {} if loss is None else {names.VAL_LOSS: loss}
    if phase is Phase.CONFIRM and status is FINISHED and loss is not None:
        metrics[names.TEST_LOSS] = loss + 0.01 * slot
    return TrialRecord(
        run_id=f"{phase}{slot}",
        arm="",
        phase=phase,
        slot=slot,
        seed=slot,
        origin="quasi-random",
        status=status,
        error="",
        params={key: repr(value) for key, value in (params or {}).items()},
        metrics=metrics,
        train_seconds=1.0,
        state_bytes=8.0,
        lanes=1,
        **known,
    )


def made(choices: Mapping[str, str], trials: Sequence[TrialRecord], label: str = "", **known: Any) -> ArmRecord:
    choices = {"task": "t", "optimizer": "sgd", "schedule": "constant", **choices}
    name = " ".join(f"{key}={value}" for key, value in choices.items()) + label
    held: dict[str, Any] = {
        "run_id": "r",
        "fingerprint": "",
        "space": {},
        "fixed": {},
        "chosen": None,
        "timing": None,
        "facts": {"loss_unit": "nats", "num_steps": 100},
        "warnings": (),
    }
    return ArmRecord(name=name, label=label or name, choices=choices, trials=tuple(trials), **(held | known))


def group(*arms: ArmRecord) -> Group:
    (found,) = compare([SweepRecord("s", "0", None, SweepPlan(), Environment(), "", (), arms)])
    return found


def confirmed(*losses: float, **known: Any) -> list[TrialRecord]:
    """Confirm trials by seed; infinity: it diverged."""
    return [
        trial(Phase.CONFIRM, seed, loss, FINISHED if math.isfinite(loss) else DIVERGED, **known)
        for seed, loss in enumerate(losses)
    ]


def searched(losses: Mapping[float, float], **others: Sequence[float]) -> list[TrialRecord]:
    """Search trials by learning rate."""
    return [
        trial(
            Phase.SEARCH,
            slot,
            loss,
            FINISHED if math.isfinite(loss) else DIVERGED,
            {"lr": lr} | {key: values[slot] for key, values in others.items()},
        )
        for slot, (lr, loss) in enumerate(losses.items())
    ]


VALLEY = {10 ** (-4 + i / 3): 1.0 + (i - 5) ** 2 / 10 for i in range(9)} | {2.0: math.inf}

MANY = {10 ** (-4 + i / 20): 1.0 + (i / 6 - 5) ** 2 / 10 for i in range(60)}


def rates(optimizer: str, *losses: Sequence[float], **choices: str) -> list[ArmRecord]:
    """Arms that differ in optimizer.lr; losses of the confirm seeds of each."""
    return [
        made({"optimizer": optimizer, "optimizer.lr": f"{10.0 ** (place - 3)}", **choices}, confirmed(*held))
        for place, held in enumerate(losses)
    ]


def warmups(lengths: Sequence[str] = ("0", "0.05", "0.2")) -> list[ArmRecord]:
    return [made({"warmup": "linear", "warmup.steps": length}, searched(VALLEY)) for length in lengths]


def modes(*found: str, losses: Sequence[float] = (1.0, 1.1, 1.2)) -> list[ArmRecord]:
    return [
        made(
            {} if mode == "none" else {"weight_decay": mode},
            confirmed(*losses),
            fixed={"weight_decay": 0.0 if mode == "none" else 0.1},
        )
        for mode in found
    ]


def descents(number: int, surface: str = "valley", points: Any = None, **known: Any) -> list[ArmRecord]:
    down = np.linspace((-9.0, 1.5), (-0.5, 0.0), 30)
    path = down if points is None else np.asarray(points, dtype=float)
    return [
        made({"optimizer": f"o{i}"}, confirmed(0.5, path=path if i == 0 else down), surface=surface, **known)
        for i in range(number)
    ]


def scheduled(*kinds: str, value: float = 0.1) -> list[ArmRecord]:
    steps = np.arange(10, 101, 10)
    logged = {names.LR: Curve(steps, value * (1 - steps / 100))}
    return [made({"schedule": kind}, confirmed(1.0, 1.1, curves=logged), fixed={"lr": value}) for kind in kinds]


def known(kind: str, multipliers: Sequence[float], value: float = 0.1) -> ArmRecord:
    """An arm whose schedule is known at every step, and was logged once."""
    logged = {names.LR: Curve(np.array([len(multipliers)]), np.array([value * multipliers[-1]]))}
    trace = ScheduleTrace(np.arange(len(multipliers)), np.array(multipliers))
    return made({"schedule": kind}, confirmed(1.0, curves=logged), fixed={"lr": value}, schedule=trace)


WARMED = [(step + 1) / 20 for step in range(20)] + [1.0] * 480


def both(key: str = "momentum", *, log: bool = False, losses: Mapping[float, float] = VALLEY) -> list[ArmRecord]:
    space = {"lr": RangeRecord(1e-4, 1.0, True, ""), key: RangeRecord(0.1, 0.9, log, "")}
    held = searched(losses, **{key: np.linspace(0.1, 0.9, len(losses)).tolist()})
    chosen = Chosen({"lr": 0.01, key: 0.5}, 1.0, 1, {}, {}, ())
    return [made({}, held, space=space, chosen=chosen)]

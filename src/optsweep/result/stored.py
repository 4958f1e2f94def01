"""A results.json, read again: checked once, and its sweeps as the records that tables and figures are made from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optsweep.errors import UserError
from optsweep.report.results import FORMAT
from optsweep.tracking import names
from optsweep.tracking.codec import from_json
from optsweep.tracking.names import Status
from optsweep.tracking.reader import ArmRecord, Curve, SweepRecord, TrialRecord
from optsweep.tracking.schema import Chosen, Environment, OptimizerTerms, RangeRecord, Session, SweepPlan, Timing
from optsweep.train.trial import Phase

Content = Mapping[str, Any]


def read(path: Path) -> Content:
    """The content of a sweep's results.json. Raises UserError for what isn't one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: it can't be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: it is damaged, no JSON; optsweep report NAME writes it again") from None
    if isinstance(content, dict) and content.get("kind") == "judged runs":
        raise UserError(f"{path}: it holds runs made elsewhere, that `optsweep judge` judged, and no sweep's results")
    if not isinstance(content, dict) or not {"sweeps", "groups"} <= content.keys():
        raise UserError(f"{path}: it holds no sweep's results")
    if content.get("format") != FORMAT:
        raise UserError(
            f"{path}: it is of format {content.get('format')!r}, and this version of optsweep reads {FORMAT}; "
            f"optsweep report NAME writes it again"
        )
    return content


def records(content: Content, where: str) -> tuple[SweepRecord, ...]:
    """The sweeps of a results.json, with what it has of each trial. Raises UserError for a damaged one."""
    try:
        return tuple(_sweep(sweep, content["groups"]) for sweep in content["sweeps"])
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{where}: it is damaged ({reason:.120}); optsweep report NAME writes it again") from None


def _sweep(sweep: Content, groups: Sequence[Content]) -> SweepRecord:
    plan = from_json(SweepPlan, sweep["plan"])
    errors = {trial["run_id"]: trial["error"] for trial in sweep["problems"]}
    arms = [_arm(arm, errors) for group in groups if group["sweep"] == sweep["name"] for arm in group["arms"]]
    order = {title.name: place for place, title in enumerate(plan.arms)}
    return SweepRecord(
        name=sweep["name"],
        experiment_id=sweep["experiment_id"],
        run_id=sweep["run_id"],
        plan=plan,
        environment=from_json(Environment, sweep["environment"]),
        command=sweep["command"],
        sessions=tuple(from_json(Session, session) for session in sweep["sessions"]),
        arms=tuple(sorted(arms, key=lambda arm: order.get(arm.name, len(order)))),
    )


def _arm(arm: Content, errors: Mapping[str, str]) -> ArmRecord:
    return ArmRecord(
        name=arm["name"],
        label=arm["label"],
        run_id=arm["run_id"],
        choices=arm["choices"],
        fingerprint=arm["fingerprint"],
        space={key: from_json(RangeRecord, found) for key, found in arm["space"].items()},
        fixed=arm["fixed"],
        chosen=_chosen(arm["chosen"]),
        chosen_again=tuple(map(_chosen, arm.get("chosen_again", ()))),
        timing=from_json(Timing, arm["timing"]) if arm["timing"] else None,
        facts=arm["facts"],
        warnings=tuple(arm["warnings"]),
        trials=tuple(_trials(arm, errors)),
        device=arm.get("device", ""),
        versions=arm.get("versions", ""),
        config=arm.get("config", ""),
        optimizer=from_json(OptimizerTerms, arm.get("optimizer", {})),
    )


def _chosen(found: Content | None) -> Chosen | None:
    return from_json(Chosen, found) if found else None


def _trials(arm: Content, errors: Mapping[str, str]) -> Iterator[TrialRecord]:
    """Search trials, then confirm trials; the latter with their curves."""
    for trial in arm.get("search", ()):  # which results of before don't have
        found = trial["value"]
        yield _trial(arm, trial, {} if found is None else {names.VAL_LOSS: found}, {}, errors)
    for trial in arm["confirm"]:
        curves = {
            names.VAL_LOSS: _curve(arm.get("rungs", ()), trial.get("val_loss_at_rungs", ())),
            names.TRAIN_LOSS: _curve(arm.get("logged", ()), trial.get("train_loss_at_logged", ())),
            names.TEST_BLOCKS: _curve(range(len(blocks := trial.get("test_blocks", ()))), blocks),
        }
        yield _trial(
            arm, trial, trial["metrics"], {key: held for key, held in curves.items() if len(held.steps)}, errors
        )


def _trial(
    arm: Content, trial: Content, metrics: Content, curves: Mapping[str, Curve], errors: Mapping[str, str]
) -> TrialRecord:
    return TrialRecord(
        run_id=trial["run_id"],
        arm=arm["name"],
        phase=Phase(trial["phase"]),
        slot=int(trial["slot"]),
        seed=int(trial["seed"]),
        origin=trial["origin"],
        status=Status(trial["status"]),
        error=errors.get(trial["run_id"], ""),
        params=trial["params"],
        metrics={key: float(value) for key, value in metrics.items()},
        train_seconds=None,
        state_bytes=arm["state_bytes"],
        lanes=1,
        curves=curves,
        device=trial.get("device", arm.get("device", "")),
        versions=trial.get("versions", arm.get("versions", "")),
    )


def _curve(steps: Sequence[int], values: Sequence[float | None]) -> Curve:
    held = [(step, float(value)) for step, value in zip(steps, values, strict=False) if value is not None]
    return Curve(np.array([s for s, _ in held], dtype=np.int64), np.array([v for _, v in held], dtype=np.float64))

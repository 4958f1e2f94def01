"""results.json, everything that the page states, for machines; and results.csv, one row per trial.

The same store gives the same bytes: keys are sorted, and nothing depends on when the report was written.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from optsweep.inference.statistics import Interval
from optsweep.report.across.findings import Across
from optsweep.report.across.results import across_results
from optsweep.report.arm_result import ArmResult
from optsweep.report.caveats import last_flip
from optsweep.report.comparison import Comparison, Group
from optsweep.report.figures.canvas import Drawing
from optsweep.report.ranking import RankingOverTrials, ranking_over_trials
from optsweep.report.samples import samples_seen
from optsweep.report.verdict import Verdict
from optsweep.tracking import names
from optsweep.tracking.codec import to_json
from optsweep.tracking.names import Status
from optsweep.tracking.reader import SweepRecord, TrialRecord
from optsweep.train.trial import Phase

FORMAT = 1
MOST_POINTS = 200
"""Of a curve."""


def results(
    sweeps: Sequence[SweepRecord], verdicts: Sequence[Verdict], found: Across, figures: Iterable[Drawing]
) -> dict[str, Any]:
    """Everything that the page states."""
    return {
        "format": FORMAT,
        "verdicts": list(found.around([verdict.text for verdict in verdicts])),
        "sweeps": [_sweep(sweep) for sweep in sweeps],
        "groups": [_group(verdict) for verdict in verdicts],
        "across": across_results(found),
        "partial": any(partial(verdict.group) for verdict in verdicts) or any(sweep.absent for sweep in sweeps),
        "figures": [_figure(drawing) for drawing in sorted(figures, key=lambda drawing: drawing.name)],
    }


def as_json(content: Mapping[str, Any]) -> str:
    """Sorted, indented; infinity and NaN, which JSON doesn't have, are the strings "inf", "-inf" and "nan"."""
    return json.dumps(_plain(content), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(sweeps: Sequence[SweepRecord]) -> str:
    """One row per trial; hyperparameters and last metrics in columns of their own."""
    rows = [_row(sweep, arm.label, trial) for sweep in sweeps for arm in sweep.arms for trial in arm.trials]
    first = list(_row_head(*_NOTHING))
    columns = first + sorted({key for row in rows for key in row} - set(first))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def partial(group: Group) -> bool:
    """Whether planned trials of the group have no result yet."""
    return bool(group.sweep.absent) or any(arm.missing(phase) for arm in group.arms for phase in Phase)


def problems(sweep: SweepRecord) -> list[tuple[str, TrialRecord]]:
    """(label of the arm, trial) of all trials that did not finish, arms in order."""
    return [(arm.label, trial) for arm in sweep.arms for trial in arm.trials if trial.status is not Status.FINISHED]


def _sweep(sweep: SweepRecord) -> dict[str, Any]:
    return {
        "name": sweep.name,
        "experiment_id": sweep.experiment_id,
        "run_id": sweep.run_id,
        "plan": to_json(sweep.plan),
        "environment": to_json(sweep.environment),
        "command": sweep.command,
        "sessions": to_json(sweep.sessions),
        "arms_not_started": sweep.absent,
        "problems": [
            {"arm": trial.arm, "label": label, **_trial(trial), "error": trial.error}
            for label, trial in problems(sweep)
        ],
    }


def _group(verdict: Verdict) -> dict[str, Any]:
    group = verdict.group
    return {
        "sweep": group.sweep.name,
        "title": group.title,
        "setting": group.setting,
        "baseline": group.baseline.name,
        "seeds": {
            "looks": group.level.looks,
            "over_searches": group.level.over_searches,
            "stopped_at": group.stopped_at,
            "nominal_level": group.level.alpha,
        },
        "repeats": {"planned": group.repeats, "complete": group.complete},
        "partial": partial(group),
        "headline": verdict.headline,
        "ranking": verdict.ranking,
        "conditions": verdict.conditions,
        "budget": verdict.budget,
        "caveats": verdict.caveats,
        "notes": verdict.notes,
        "arms": [_arm(arm) for arm in group.arms],
        "comparisons": [_comparison(comparison, said) for comparison, said in verdict.sentences],
        "lowest": [arm.name for arm in group.lowest],
        "ranking_over_trials": _over_trials(ranking_over_trials(group)),
    }


def _over_trials(found: RankingOverTrials | None) -> dict[str, Any] | None:
    """How many search trials the order takes; None where it can't be said."""
    if found is None:
        return None
    return {
        "pairs": [[lower.name, higher.name] for lower, higher in found.pairs],
        "trials": found.stability.trials,
        "searches": found.stability.searches,
        "searches_in_order": found.stability.agreeing,
        "stable_from": found.stability.stable_from,
        "stable_after": _interval(found.stability.after),
        "sentence": found.sentence,
    }


def _arm(arm: ArmResult) -> dict[str, Any]:
    return {
        "name": arm.name,
        "label": arm.label,
        "run_id": arm.arm.run_id,
        "choices": arm.arm.choices,
        "fingerprint": arm.arm.fingerprint,
        "device": arm.arm.device,
        "versions": arm.arm.versions,
        "space": {key: asdict(value) for key, value in arm.arm.space.items()},
        "fixed": arm.arm.fixed,
        "chosen": asdict(arm.arm.chosen) if arm.arm.chosen else None,
        "chosen_again": [asdict(held) if held else None for held in arm.arm.chosen_again],
        "unbracketed": arm.unbracketed,
        "facts": arm.arm.facts,
        "warnings": arm.arm.warnings,
        "test_loss": _interval(arm.test),
        "val_loss": _interval(arm.val),
        "test_metric": _interval(arm.metric),
        "test_aside": _interval(arm.aside),  # the loss, where facts.decides says that a metric stands in its place
        "timing": asdict(arm.arm.timing) if arm.arm.timing else None,
        "lr_basin": asdict(arm.basin) if arm.basin else None,
        "state_bytes": arm.state_bytes,
        "run_seconds": arm.run_seconds,
        "samples_seen": samples_seen(arm),
        "trials": {phase: {status: arm.count(phase, status) for status in Status} for phase in Phase},
        "missing": {phase: arm.missing(phase) for phase in Phase},
        "config": arm.arm.config,
        "optimizer": to_json(arm.arm.optimizer),
        "rungs": (rungs := _evaluated(arm, names.VAL_LOSS)),
        "logged": (logged := _evaluated(arm, names.TRAIN_LOSS)),
        "confirm": [_confirmed(trial, rungs, logged) | _elsewhere(trial, arm) for trial in arm.arm.of(Phase.CONFIRM)],
        "search": [_search_trial(trial) | _elsewhere(trial, arm) for trial in arm.arm.of(Phase.SEARCH)],
    }


def _evaluated(arm: ArmResult, key: str) -> list[int]:
    """Steps at which a confirm trial has a value of a loss, of more than `MOST_POINTS` so many: the last is kept."""
    curves = [trial.curves[key] for trial in arm.arm.of(Phase.CONFIRM) if key in trial.curves]
    steps = sorted({int(step) for curve in curves for step in curve.steps})
    return steps[::-1][:: math.ceil(len(steps) / MOST_POINTS)][::-1] if steps else []


def _curve(trial: TrialRecord, key: str, steps: Sequence[int]) -> list[float | None]:
    """A loss at these steps, in six digits; None where the trial has none."""
    curve = trial.curves.get(key)
    held = {} if curve is None else dict(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
    return [float(f"{held[step]:.6g}") if step in held else None for step in steps]


def _elsewhere(trial: TrialRecord, arm: ArmResult) -> dict[str, str]:
    """Where a trial was trained, if that isn't where those of its arm began."""
    own = {"device": trial.device, "versions": trial.versions}
    return {key: said for key, said in own.items() if said != vars(arm.arm)[key]}


def _search_trial(trial: TrialRecord) -> dict[str, Any]:
    content = _trial(trial)
    return {**{key: content[key] for key in content if key != "metrics"}, "value": trial.metrics.get(names.VAL_LOSS)}


def _trial(trial: TrialRecord) -> dict[str, Any]:
    return {
        "run_id": trial.run_id,
        "phase": trial.phase,
        "repeat": trial.repeat,
        "slot": trial.slot,
        "seed": trial.seed,
        "origin": trial.origin,
        "status": trial.status,
        "params": trial.params,
        "metrics": trial.metrics,
    }


def _confirmed(trial: TrialRecord, rungs: Sequence[int], logged: Sequence[int]) -> dict[str, Any]:
    """With its curves, and the test losses of parts of the split, which intervals are over too."""
    return {
        **_trial(trial),
        "test_blocks": [float(f"{loss:.6g}") for loss in trial.test_blocks],
        "val_loss_at_rungs": _curve(trial, names.VAL_LOSS, rungs),
        "train_loss_at_logged": _curve(trial, names.TRAIN_LOSS, logged),
    }


def _comparison(comparison: Comparison, said: str) -> dict[str, Any]:
    return {
        "candidate": comparison.candidate.name,
        "baseline": comparison.baseline.name,
        "sentence": said,
        "outcome": comparison.outcome,
        "differences": {str(unit): value for unit, value in comparison.differences.items()},
        "over": "searches" if comparison.searches > 1 else "seeds",
        "searches": comparison.searches,
        "seeds_per_search": comparison.seeds,
        "over_samples": comparison.over_samples,
        "at_chosen_settings": comparison.at_chosen,
        "paired_t": asdict(comparison.test) if comparison.test else None,
        "validation_paired_t": asdict(comparison.val_test) if comparison.val_test else None,
        "p_holm": comparison.p_holm,
        "sign_flip_p": comparison.sign_flip_p,
        "bca": _interval(comparison.bca),
        "probability_lower": _interval(comparison.probability),
        "delta": comparison.delta,
        "equivalence_p": comparison.equal_p,
        "steps_ratio": _interval(comparison.steps_ratio),
        "steps_ratio_of": comparison.steps_ratio_of,
        "steps_ratios": comparison.steps_ratios,
        "seconds_ratio": _interval(comparison.seconds_ratio),
        "time_ratio": comparison.time_ratio,
        "state_ratio": comparison.state_ratio,
        "last_flip": _flip(last_flip(comparison)),
    }


def _flip(found: tuple[int, int] | None) -> dict[str, int] | None:
    return {"step": found[0], "num_steps": found[1]} if found else None


def _figure(drawing: Drawing) -> dict[str, str]:
    """A file of figures/, and what the page says of it."""
    return {"name": drawing.name, "title": drawing.title, "caption": drawing.caption, "alt": drawing.alt}


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return asdict(interval) if interval else None


def _row(sweep: SweepRecord, label: str, trial: TrialRecord) -> dict[str, Any]:
    values = {key: _cell(value) for key, value in trial.metrics.items()}
    return _row_head(sweep.name, label, trial) | {f"param:{k}": v for k, v in trial.params.items()} | values


def _row_head(sweep: str, label: str, trial: TrialRecord) -> dict[str, Any]:
    return {
        "sweep": sweep,
        "arm": trial.arm,
        "label": label,
        "phase": trial.phase.value,
        "repeat": trial.repeat,
        "slot": trial.slot,
        "seed": trial.seed,
        "origin": trial.origin,
        "status": trial.status.value,
        "error": trial.error,
        "run_id": trial.run_id,
        "train_seconds": trial.train_seconds,
        "state_bytes": trial.state_bytes,
        "lanes": trial.lanes,
        "device": trial.device,
        "versions": trial.versions,
    }


_NOTHING = ("", "", TrialRecord("", "", Phase.SEARCH, 0, 0, "", Status.RUNNING, "", {}, {}, None, None, 1))


def _cell(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _plain(value: Any) -> Any:
    """The value with tuples as lists, enums as their text, and numbers that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(held) for held in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, str) else value

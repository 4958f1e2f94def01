"""The arms, trials and curves of a sweep as pandas' frames. pandas is imported when one is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optsweep.errors import UserError
from optsweep.inference.statistics import Interval, PairedT
from optsweep.report.arm_result import ArmResult
from optsweep.report.comparison import Comparison, Group
from optsweep.report.samples import samples_seen
from optsweep.result.best import best_of
from optsweep.tracking import names
from optsweep.tracking.names import Status
from optsweep.tracking.reader import TrialRecord
from optsweep.tracking.schema import Setting, number
from optsweep.train.trial import Phase

if TYPE_CHECKING:
    from pandas import DataFrame

CURVES = {names.VAL_LOSS: "val_loss", names.TRAIN_LOSS: "train_loss"}


def arms(groups: Sequence[Group]) -> DataFrame:
    """A row per arm: its best setting, its means with their intervals, the difference to the baseline, its costs."""
    return _frame([_arm(group, arm) for group in groups for arm in group.arms])


def trials(groups: Sequence[Group]) -> DataFrame:
    """A row per trial: where it stands, how it ended, its hyperparameters and its last losses."""
    first = ("task", "arm", "phase", "repeat", "slot", "seed", "origin", "status")
    rows = [_trial(group, arm, trial) for group in groups for arm in group.arms for trial in arm.arm.trials]
    return _frame(rows, first)


def curves(groups: Sequence[Group]) -> DataFrame:
    """A row per value of a confirm trial's validation or training loss, at its step."""
    columns = ("task", "arm", "repeat", "seed", "metric", "step", "value")
    found = [
        dict(zip(columns, row, strict=True)) for group in groups for arm in group.arms for row in _points(group, arm)
    ]
    return _frame(found, columns)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> DataFrame:
    import pandas

    return pandas.DataFrame(rows, columns=list(dict.fromkeys([*columns, *(key for row in rows for key in row)])))


def _arm(group: Group, arm: ArmResult) -> dict[str, Any]:
    comparison = next((found for found in group.comparisons if found.candidate is arm), None)
    ended = {str(status): sum(arm.count(phase, status) for phase in Phase) for status in Status}
    return {
        "task": group.title,
        "arm": arm.label,
        "baseline": arm is group.baseline,
        **_setting(arm),
        **_interval("test_loss", arm.test),
        **_interval("val_loss", arm.val),
        **_interval(f"test_{arm.metric_name or 'metric'}", arm.metric),
        **_difference(comparison),
        "searches": len(arm.complete),
        "seeds": len(arm.test_losses),
        "ms_per_step": arm.ms_per_step,
        "state_bytes": arm.state_bytes,
        "samples_seen": samples_seen(arm),
        **ended,
    }


def _setting(arm: ArmResult) -> Mapping[str, Setting]:
    """The best one; of an arm that has none yet, nothing."""
    try:
        return best_of(arm).hyper
    except UserError:
        return {}


def _difference(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        return {}
    return {
        **_interval("difference", _as_interval(comparison.test)),
        "p_holm": comparison.p_holm,
        "outcome": str(comparison.outcome),
    }


def _as_interval(test: PairedT | None) -> Interval | None:
    return None if test is None else Interval(test.mean, test.low, test.high, test.n)


def _interval(key: str, found: Interval | None) -> dict[str, float | None]:
    values = (None, None, None) if found is None else (found.estimate, found.low, found.high)
    return dict(zip((key, f"{key}_low", f"{key}_high"), values, strict=True))


def _trial(group: Group, arm: ArmResult, trial: TrialRecord) -> dict[str, Any]:
    own = {
        "task": group.title,
        "arm": arm.label,
        "phase": str(trial.phase),
        "repeat": trial.repeat,
        "slot": trial.slot,
        "seed": trial.seed,
        "origin": trial.origin,
        "status": str(trial.status),
        "error": trial.error,
        "device": trial.device,
    }
    params = {key: text if (n := number(text)) is None else n for key, text in trial.params.items() if key not in own}
    metrics = {key.replace("/", "_"): value for key, value in trial.metrics.items()}
    return {**own, **params, **metrics}


def _points(group: Group, arm: ArmResult) -> Iterator[tuple[Any, ...]]:
    for trial in arm.arm.of(Phase.CONFIRM):
        for key, name in CURVES.items():
            if (curve := trial.curves.get(key)) is not None:
                for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
                    yield group.title, arm.label, trial.repeat, trial.seed, name, step, value

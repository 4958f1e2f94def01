"""Reads a sweep from MLflow into plain data; nothing else of the report knows MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsweep.errors import UserError
from optsweep.inference.looks import Seeds
from optsweep.inference.repeats import repeat_of
from optsweep.tracking import names
from optsweep.tracking.codec import UnreadableError
from optsweep.tracking.contents import History, histories, whole_runs
from optsweep.tracking.names import Status
from optsweep.tracking.paths import read_path, recorded_surface
from optsweep.tracking.schema import (
    ARM_FILE,
    ArmSheet,
    Chosen,
    Environment,
    OptimizerTerms,
    RangeRecord,
    ScheduleTrace,
    Session,
    SweepPlan,
    SweepSheet,
    Timing,
    TrialEnd,
    TrialHead,
    number,
    trial_params,
)
from optsweep.tracking.sheets import read_sheet
from optsweep.tracking.store import SweepNotFound, check_version
from optsweep.train.trial import Phase

if TYPE_CHECKING:  # importing mlflow costs seconds
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

LEARNING_RATE = "lr"
WEIGHT_DECAY = "weight_decay"
UNREAD = f"{ARM_FILE} of its run could not be read."
"""The warning of an arm whose sheet is broken."""
_MLFLOW_INFINITY = 1.7e308  # MLflow stores infinity as the largest float


@dataclass(frozen=True)
class Curve:
    """A metric against optimizer steps done."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class TrialRecord:
    """One training run."""

    run_id: str
    arm: str
    phase: Phase
    slot: int
    seed: int
    origin: str
    status: Status
    error: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]  # last values
    train_seconds: float | None
    state_bytes: float | None
    lanes: int
    curves: Mapping[str, Curve] = field(default_factory=dict)
    path: NDArray[np.float64] | None = None  # [steps, 2], of a trial on a surface that figures draw
    device: str = ""  # the model on which it was trained; empty: nobody noted it
    versions: str = ""  # of torch and Python there

    @property
    def repeat(self) -> int:
        """Which of the arm's searches it belongs to."""
        return repeat_of(self.seed)

    @property
    def test_blocks(self) -> tuple[float, ...]:
        """Mean losses of about equal parts of the test split; none where they aren't known."""
        held = self.curves.get(names.TEST_BLOCKS)
        return () if held is None else tuple(map(float, held.values))

    def number(self, key: str) -> float | None:
        """A hyperparameter as a number, or None."""
        return number(self.params.get(key))

    def metric(self, key: str) -> float | None:
        """A metric's last value; None if it is missing or NaN."""
        value = self.metrics.get(key)
        return None if value is None or math.isnan(value) else value


@dataclass(frozen=True)
class ArmRecord:
    """One combination of the sweep, with its trials in order of phase, repeat and slot."""

    name: str
    label: str
    run_id: str
    choices: Mapping[str, str]
    fingerprint: str
    space: Mapping[str, RangeRecord]
    fixed: Mapping[str, Any]
    chosen: Chosen | None
    timing: Timing | None
    facts: Mapping[str, Any]  # of ArmFacts, by name
    warnings: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    schedule: ScheduleTrace | None = None
    chosen_again: tuple[Chosen | None, ...] = ()  # by the further searches of sweep.repeats
    config: str = ""  # composed, as YAML; empty: written by an earlier version
    optimizer: OptimizerTerms = field(default_factory=OptimizerTerms)
    surface: str = ""  # of a landscape whose paths are recorded
    device: str = ""  # the model on which its trials began; empty: nobody noted it
    versions: str = ""  # of torch and Python there

    def of(self, phase: Phase) -> list[TrialRecord]:
        """The trials of one phase."""
        return [trial for trial in self.trials if trial.phase is phase]

    @property
    def all_chosen(self) -> Mapping[int, Chosen]:
        """The chosen setting by repeat, of those whose search ended on one."""
        return {repeat: held for repeat, held in enumerate((self.chosen, *self.chosen_again)) if held is not None}


@dataclass(frozen=True)
class SweepRecord:
    """Everything that the store holds of one sweep."""

    name: str
    experiment_id: str
    run_id: str | None
    plan: SweepPlan
    environment: Environment
    command: str
    sessions: tuple[Session, ...]
    arms: tuple[ArmRecord, ...]

    def planned(self, phase: Phase) -> int:
        """How many trials the plan asks of each search in a phase; with confirm.seeds=auto at least."""
        return self.plan.planned(phase)

    @property
    def seeds(self) -> Seeds:
        """Confirm seeds of each search: their number, or `auto`."""
        return self.plan.confirm.seeds

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which confirm.seeds=auto has looked or will; none where it was never asked for."""
        return self.plan.looks

    @property
    def absent(self) -> tuple[str, ...]:
        """Arms of the plan that haven't started, by their labels."""
        started = {arm.name for arm in self.arms}
        return tuple(title.label for title in self.plan.arms if title.name not in started)


def load_sweep(client: MlflowClient, name: str, experiment_id: str) -> SweepRecord:
    """Read sweep `name`: sheets, params and last metrics of every run, curves of those trials that figures draw.

    Raises SweepNotFound if the experiment is no sweep, UserError if another version wrote it.
    """
    by_kind: dict[str, list[Run]] = {"sweep": [], "arm": [], "trial": []}
    for run in whole_runs(client, experiment_id):
        if run.data.tags.get(names.PHASE) not in names.NOT_REPORTED:
            by_kind.get(run.data.tags.get(names.KIND, ""), []).append(run)
    if not by_kind["sweep"]:
        raise SweepNotFound(f"experiment '{name}' exists in the store but is no sweep: it has no runs of optsweep")
    sweep_run = by_kind["sweep"][0]
    check_version(sweep_run.data.tags, name)
    try:
        sheet = read_sheet(client, sweep_run.info, SweepSheet) or SweepSheet()
    except UnreadableError as error:
        raise UserError(f"tracking.uri: sweep {name} has a run {sweep_run.info.run_id} with a broken {error}") from None
    trials: dict[str, list[TrialRecord]] = {}
    for run in by_kind["trial"]:
        trials.setdefault(_arm_of(run), []).append(_trial(run))
    arms = [_arm(client, run, trials.get(_arm_of(run), [])) for run in by_kind["arm"]]
    order = {title.name: place for place, title in enumerate(sheet.plan.arms)}
    arms.sort(key=lambda arm: (order.get(arm.name, len(order)), _natural(arm.name)))
    return SweepRecord(
        name=name,
        experiment_id=experiment_id,
        run_id=sweep_run.info.run_id,
        plan=sheet.plan,
        environment=sheet.environment,
        command=sheet.command,
        sessions=sheet.sessions,
        arms=tuple(_with_path(client, arm) for arm in _with_curves(client, arms)),
    )


def _arm_of(run: Run) -> str:
    """The arm that it is, or is of."""
    return names.tag(run.data.tags, names.ARM) or ""


def _natural(name: str) -> list[tuple[str, float]]:
    """A sort key by which lr=2.1 comes before lr=10."""
    parts = re.split(r"(\d+\.?\d*(?:e[-+]?\d+)?)", name)
    return [(text, float(digits)) for text, digits in zip(parts[::2], [*parts[1::2], "0"], strict=True)]


def _trial(run: Run) -> TrialRecord:
    tags, params = run.data.tags, run.data.params
    found = {key: infinity(value) for key, value in run.data.metrics.items() if key != names.TEST_BLOCKS}
    read_as = _read_as(found)
    metrics = {read_as.get(key, key): value for key, value in found.items()}
    head, end = TrialHead.of(tags, params), TrialEnd.of(tags, params, metrics)
    return TrialRecord(
        run_id=run.info.run_id,
        arm=head.arm,
        phase=head.phase,
        slot=head.slot,
        seed=head.seed,
        origin=head.origin,
        status=end.status,
        error=end.error,
        params=trial_params(params),
        metrics=metrics,
        train_seconds=end.train_seconds,
        state_bytes=None if end.state_bytes is None else float(end.state_bytes),
        lanes=head.lanes,
        device=head.device,
        versions=head.versions,
    )


_DECIDED = {
    names.VAL_OBJECTIVE: names.VAL_LOSS,
    names.VAL_LOSS: names.VAL_ASIDE,
    names.TEST_OBJECTIVE: names.TEST_LOSS,
    names.TEST_LOSS: names.TEST_ASIDE,
}
"""Keys as they are written where a metric decides, and as they are read: what decides takes the loss's place."""


def _read_as(written: Collection[str]) -> Mapping[str, str]:
    """How the keys of a trial's metrics are read."""
    return _DECIDED if names.VAL_OBJECTIVE in written else {}


def _arm(client: MlflowClient, run: Run, trials: Sequence[TrialRecord]) -> ArmRecord:
    name = _arm_of(run) or run.info.run_id
    sheet = ArmSheet(name, run.info.run_name or name)
    try:
        sheet = read_sheet(client, run.info, ArmSheet) or sheet
    except UnreadableError:
        sheet = replace(sheet, warnings=(UNREAD,))
    return ArmRecord(
        name=name,
        label=sheet.label,
        run_id=run.info.run_id,
        choices=sheet.choices,
        fingerprint=sheet.fingerprint,
        space=sheet.space,
        fixed=sheet.fixed,
        chosen=sheet.chosen,
        chosen_again=sheet.chosen_again,
        timing=sheet.timing,
        facts={} if sheet.facts is None else asdict(sheet.facts),
        warnings=sheet.warnings,
        trials=tuple(on_known_machines(_one_per_slot(trials), sheet.device, sheet.versions)),
        device=sheet.device,
        versions=sheet.versions,
        schedule=sheet.schedule,
        config=sheet.config,
        optimizer=sheet.optimizer,
        surface=recorded_surface(run.data.params),
    )


def on_known_machines(trials: Iterable[TrialRecord], device: str, versions: str) -> Iterator[TrialRecord]:
    """Trials that don't say where they were trained are of the machine on which those of their arm began."""
    for trial in trials:
        yield replace(trial, device=trial.device or device, versions=trial.versions or versions)


def _one_per_slot(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """A slot that ran twice counts once: the last run that has a result, else the last one tried."""
    chosen: dict[tuple[str, int, int], TrialRecord] = {}
    without = (Status.CRASHED, Status.RUNNING)
    for trial in trials:  # oldest first
        key = (trial.phase.value, trial.repeat, trial.slot)
        held = chosen.get(key)
        if held is None or held.status in without or trial.status not in without:
            chosen[key] = trial
    return [chosen[key] for key in sorted(chosen, key=lambda key: (key[0] != Phase.SEARCH.value, *key[1:]))]


def _with_curves(client: MlflowClient, arms: Sequence[ArmRecord]) -> list[ArmRecord]:
    """The arms with the curves that figures draw, all read together."""
    drawn = {trial.run_id: keys for arm in arms for trial, keys in _drawn(arm)}
    found = histories(client, {run_id: list(keys) for run_id, keys in drawn.items()})
    curves = {
        run_id: {read: _curve(found.get((run_id, written), ())) for written, read in keys.items()}
        for run_id, keys in drawn.items()
    }
    return [
        replace(arm, trials=tuple(replace(t, curves=curves[t.run_id]) if t.run_id in curves else t for t in arm.trials))
        for arm in arms
    ]


def _drawn(arm: ArmRecord) -> Iterator[tuple[TrialRecord, dict[str, str]]]:
    """Confirm trials, or the chosen (else best) search trials where there are none yet, with the curves they need.

    Those are metrics as they were written, with the key that each is read as. All other trials need only their last
    values: reading every history would take minutes for thousands of trials.
    """
    drawn = {trial.run_id for trial in arm.of(Phase.CONFIRM)}
    if not drawn:
        chosen = {(repeat, slot) for repeat, held in arm.all_chosen.items() for slot in held.slots}
        drawn = {trial.run_id for trial in arm.of(Phase.SEARCH) if (trial.repeat, trial.slot) in chosen}
    if not drawn and arm.trials:
        drawn = {min(arm.trials, key=_rank).run_id}
    # the applied learning rate is the same for all of them, so that of one is enough
    first = min(
        (t for t in arm.trials if t.run_id in drawn and names.LR in t.metrics),
        key=lambda t: (t.status is not Status.FINISHED, t.slot),
        default=None,
    )
    for trial in arm.trials:
        if trial.run_id in drawn:
            keys = (names.VAL_LOSS, names.VAL_ASIDE, names.TRAIN_LOSS, *((names.LR,) if trial is first else ()))
            written = {read: key for key, read in _DECIDED.items()} if names.VAL_ASIDE in trial.metrics else {}
            wanted = {written.get(key, key): key for key in keys if key in trial.metrics}
            blocks = {names.TEST_BLOCKS: names.TEST_BLOCKS} if names.TEST_LOSS in trial.metrics else {}
            yield trial, wanted | blocks


def _with_path(client: MlflowClient, arm: ArmRecord) -> ArmRecord:
    """The path of the first confirm seed; no file is asked for unless the arm runs on a surface and records."""
    ended = [trial for trial in arm.of(Phase.CONFIRM) if trial.status in (Status.FINISHED, Status.DIVERGED)]
    if not arm.surface or not ended:
        return arm
    first = min(ended, key=lambda trial: trial.seed)
    path = read_path(client, first.run_id)
    return replace(arm, trials=tuple(replace(t, path=path) if t is first else t for t in arm.trials))


def _curve(history: History) -> Curve:
    """A metric by step; of a step that was logged twice (a resumed trial), the last."""
    points = {step: infinity(value) for step, value in history}
    return Curve(np.array(list(points), dtype=np.int64), np.array(list(points.values()), dtype=np.float64))


def _rank(trial: TrialRecord) -> tuple[bool, float]:
    """Finished trials first, then by validation loss."""
    loss = trial.metric(names.VAL_LOSS)
    return (trial.status is not Status.FINISHED, math.inf if loss is None else loss)


def infinity(value: float) -> float:
    """The value as it was logged: MLflow keeps infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= _MLFLOW_INFINITY else value
